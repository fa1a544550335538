"""An integrator: one step of Y' = f(t, Y) - L Y."""

from torch import Tensor

from imex_experiments.integrators import Integrator, System


class SplitEuler(Integrator):
    """The step S (Z + h f(t, Z)) with Z = S Y and S = (I + h/2 L)^-1. Order 1."""

    order = 1
    uses_operator = True

    def step(self, system: System, t0: float, t1: float, y: Tensor) -> Tensor:
        f, L, h = system.f, system.L(t0), t1 - t0
        z = L.solve(y, h / 2)
        return L.solve(z + h * f(t0, z), h / 2)
