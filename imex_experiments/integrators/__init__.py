"""Time integrators: each class is one scheme, and its `step` reads like its equation."""

from imex_experiments.integrators.explicit import ForwardEuler
from imex_experiments.integrators.integrate import integrate
from imex_experiments.integrators.semi_implicit import DiffusionReaction, Imex
from imex_experiments.integrators.system import Integrator, Operator, System
from imex_experiments.integrators.time_grid import TimeGrid

__all__ = [
    "DiffusionReaction",
    "ForwardEuler",
    "Imex",
    "Integrator",
    "Operator",
    "System",
    "TimeGrid",
    "integrate",
]
