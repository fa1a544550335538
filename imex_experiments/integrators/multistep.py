"""Multistep schemes: a step uses the states and the f of earlier steps of the block.

Shapes: states y (B, C, ...); f and L map a state to a tensor of its shape.
"""

from dataclasses import dataclass

from torch import Tensor

from imex_experiments.integrators.system import Integrator, System


class SBDF2(Integrator):
    """Semi-implicit backward differences (SBDF) for Y' = f(Y) - L Y. Order 2.

    The time derivative is a backward difference, f is extrapolated, L is implicit. Y- and
    h- are the state and the step size before. For constant steps:

    (3 Y+ - 4 Y + Y-) / 2 = h (2 f(Y) - f(Y-) - L Y+).

    For any steps, with w = h / h-:

    (1+2w)/(1+w) Y+ - (1+w) Y + w^2/(1+w) Y- = h ((1+w) f(Y) - w f(Y-) - L Y+).

    The first step of a block is `ImexEuler`. It is zero-stable for w < 1 + sqrt(2).
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
    """The time, the state and its f at the start of the step before."""

    t: float
    y: Tensor
    f: Tensor
