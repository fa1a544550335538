"""The time loop of all schemes."""

from torch import Tensor

from imex_experiments.integrators.system import Dynamics, Integrator
from imex_experiments.integrators.time_grid import TimeGrid


def integrate(
    integrator: Integrator, system: Dynamics, grid: TimeGrid, y: Tensor
) -> Tensor:
    """Return Y(t_N) for Y(t_0) = y, by one step of the integrator per grid interval."""
    past = None
    for t0, t1 in grid.steps():
        y, past = integrator.advance(system.during(t0, t1), t0, t1, y, past)
    return y
