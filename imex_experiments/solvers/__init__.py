"""Linear and nonlinear solvers as pure functions; each sample of a batch by itself."""

from imex_experiments.solvers.implicit_gradient import attach
from imex_experiments.solvers.info import SolveInfo
from imex_experiments.solvers.krylov import gmres
from imex_experiments.solvers.linearise import linearise
from imex_experiments.solvers.nonlinear import SOLVERS, newton_step

__all__ = ["SOLVERS", "SolveInfo", "attach", "gmres", "linearise", "newton_step"]
