"""Lightning callbacks: dashboards, epoch log, checkpoints, checks during training."""

from imex_experiments.callbacks.batch_statistics import BatchStatistics
from imex_experiments.callbacks.checkpoints import Checkpoints
from imex_experiments.callbacks.figures import Figures
from imex_experiments.callbacks.finite_check import FiniteCheck
from imex_experiments.callbacks.history import History
from imex_experiments.callbacks.random_state import RandomState
from imex_experiments.callbacks.reconfigured import Reconfigured
from imex_experiments.callbacks.solver_log import SolverLog
from imex_experiments.callbacks.stability import AutoAlpha, StabilityLog
from imex_experiments.callbacks.step_graphs import StepGraphs
from imex_experiments.callbacks.tensorboard import (
    CustomScalars,
    HParams,
    OneCurve,
    RunLogger,
)

__all__ = [
    "AutoAlpha",
    "BatchStatistics",
    "Checkpoints",
    "CustomScalars",
    "Figures",
    "FiniteCheck",
    "HParams",
    "History",
    "OneCurve",
    "RandomState",
    "Reconfigured",
    "RunLogger",
    "SolverLog",
    "StabilityLog",
    "StepGraphs",
]
