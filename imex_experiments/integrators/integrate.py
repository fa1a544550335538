"""The one time loop."""

from torch import Tensor

from imex_experiments.integrators.system import Dynamics, Integrator, Multistep
from imex_experiments.integrators.time_grid import TimeGrid


def integrate(
    integrator: Integrator | Multistep, system: Dynamics, grid: TimeGrid, y: Tensor
) -> Tensor:
    """Y(t_N) from Y(t_0) = y, one step of the integrator per interval of the grid."""
    scheme = integrator.begin() if isinstance(integrator, Multistep) else integrator
    for t0, t1 in grid.steps():
        y = scheme.step(system.during(t0, t1), t0, t1, y)
    return y
