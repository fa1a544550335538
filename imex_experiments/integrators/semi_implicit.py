"""Semi-implicit schemes: f explicit, L implicit, S = (I + h L)^-1."""

from torch import Tensor

from imex_experiments.integrators.system import System


class Imex:
    """Y + h S f(Y), consistent with Y' = f(Y). Order 1. Source: IMEXnet eq. 6.

    The paper prints S (Y + h L Y + h f(Y)); since S (I + h L) = I both are the same, and
    this form needs no L Y.
    """

    uses_operator = True

    def step(self, system: System, t0: float, t1: float, y: Tensor) -> Tensor:
        f, L, h = system.f, system.L(t0), t1 - t0
        return y + h * L.solve(f(t0, y), h)


class DiffusionReaction:
    """S (Y + h f(Y)), consistent with Y' = f(Y) - L Y. Order 1. Source: IMEXnet eq. 11.

    The paper prints I + h f, which is Y + h f(Y).
    """

    uses_operator = True

    def step(self, system: System, t0: float, t1: float, y: Tensor) -> Tensor:
        f, L, h = system.f, system.L(t0), t1 - t0
        return L.solve(y + h * f(t0, y), h)
