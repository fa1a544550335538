"""Solvers as pure functions, (func, x0, ...) to (x, SolveInfo), sample by sample."""

from imex_experiments.solvers.implicit_gradient import attach
from imex_experiments.solvers.info import SolveInfo
from imex_experiments.solvers.krylov import gmres
from imex_experiments.solvers.linearise import linearise
from imex_experiments.solvers.nonlinear import SOLVERS, newton_step

__all__ = ["SOLVERS", "SolveInfo", "attach", "gmres", "linearise", "newton_step"]
