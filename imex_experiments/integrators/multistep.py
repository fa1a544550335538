"""Multistep schemes: a step uses what earlier steps of the block have seen."""

from dataclasses import dataclass

from torch import Tensor

from imex_experiments.integrators.system import Integrator, System


class SBDF2(Integrator):
    """Second-order backward differences, f extrapolated, for Y' = f(Y) - L Y. Order 2.

    For a constant step (3 Y+ - 4 Y + Y-) / 2 = h (2 f(Y) - f(Y-) - L Y+); with w = h / h-
    the coefficients of any grid:

    (1+2w)/(1+w) Y+ - (1+w) Y + w^2/(1+w) Y- = h ((1+w) f(Y) - w f(Y-) - L Y+).

    The first step of a block is `DiffusionReaction`. Steps may grow by w < 1 + sqrt(2).
    Source: Wang and Ruuth, Variable step-size implicit-explicit linear multistep methods
    (2008), eq. 2.7 with gamma = 1, c = 0.
    """

    order = 2
    uses_operator = True
    looks_back = True

    def step(self, system: System, t0: float, t1: float, y: Tensor) -> Tensor:
        return self.advance(system, t0, t1, y, None)[0]

    def advance(
        self, system: System, t0: float, t1: float, y: Tensor, past: "_Past | None"
    ) -> tuple[Tensor, "_Past"]:
        f, L, h = system.f(t0, y), system.L(t0), t1 - t0
        now = _Past(t0, y, f)
        if past is None:
            return L.solve(y + h * f, h), now
        w = h / (t0 - past.t)
        a = (1 + 2 * w) / (1 + w)
        known = (1 + w) * y - w**2 / (1 + w) * past.y + h * ((1 + w) * f - w * past.f)
        return L.solve(known / a, h / a), now


@dataclass(frozen=True)
class _Past:
    t: float
    y: Tensor
    f: Tensor
