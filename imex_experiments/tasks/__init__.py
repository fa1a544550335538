"""Tasks: LightningModules that give a network its loss, metrics, optimizer and figures."""

from imex_experiments.tasks.classification import ClassificationTask
from imex_experiments.tasks.depth import DepthTask
from imex_experiments.tasks.freezing import freeze
from imex_experiments.tasks.optimisation import MultiStep
from imex_experiments.tasks.regression import RegressionTask
from imex_experiments.tasks.segmentation import SegmentationTask
from imex_experiments.tasks.task import Task

__all__ = [
    "ClassificationTask",
    "DepthTask",
    "MultiStep",
    "RegressionTask",
    "SegmentationTask",
    "Task",
    "freeze",
]
