"""Time integrators: each class is one scheme, and its `step` reads like its formula."""

from imex_experiments.integrators.explicit import (
    ClassicRK4,
    ForwardEuler,
    Midpoint,
    Verlet,
)
from imex_experiments.integrators.exponential import ETD1
from imex_experiments.integrators.implicit import Theta
from imex_experiments.integrators.integrate import integrate
from imex_experiments.integrators.multistep import SBDF2
from imex_experiments.integrators.semi_implicit import (
    ARS222,
    DiffusionReaction,
    Imex,
    ImexEuler,
)
from imex_experiments.integrators.system import (
    Dynamics,
    Integrator,
    Operator,
    System,
)
from imex_experiments.integrators.time_grid import TimeGrid

__all__ = [
    "ARS222",
    "ETD1",
    "SBDF2",
    "ClassicRK4",
    "DiffusionReaction",
    "Dynamics",
    "ForwardEuler",
    "Imex",
    "ImexEuler",
    "Integrator",
    "Midpoint",
    "Operator",
    "System",
    "Theta",
    "TimeGrid",
    "Verlet",
    "integrate",
]
