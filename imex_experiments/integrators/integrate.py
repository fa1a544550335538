"""The one time loop."""

from torch import Tensor

from imex_experiments.integrators.system import Integrator, System
from imex_experiments.integrators.time_grid import TimeGrid


def integrate(
    integrator: Integrator, system: System, grid: TimeGrid, y: Tensor
) -> Tensor:
    """Y(t_N) from Y(t_0) = y, one step of the integrator per interval of the grid."""
    for t0, t1 in grid.steps():
        y = integrator.step(system, t0, t1, y)
    return y
