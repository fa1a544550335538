"""Explicit schemes: f alone, no solve."""

from torch import Tensor

from imex_experiments.integrators.system import System


class ForwardEuler:
    """Y + h f(Y): the residual network. Order 1. Source: IMEXnet eq. 1."""

    uses_operator = False

    def step(self, system: System, t0: float, t1: float, y: Tensor) -> Tensor:
        f, h = system.f, t1 - t0
        return y + h * f(t0, y)
