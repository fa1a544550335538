"""Lightning data modules, and the generators and readers of their data."""

from imex_experiments.data.cifar10 import Cifar10Data
from imex_experiments.data.epoch_sampler import EpochLoader, EpochSampler
from imex_experiments.data.folder.augmentation import Augmentation
from imex_experiments.data.folder.data_module import FolderData
from imex_experiments.data.nyu.data_module import NyuData, NyuSampleData
from imex_experiments.data.qtips_data import QtipsData
from imex_experiments.data.toy import Function1dData, SpiralsData
from imex_experiments.facts import DataModule, Facts

__all__ = [
    "Augmentation",
    "Cifar10Data",
    "DataModule",
    "EpochLoader",
    "EpochSampler",
    "Facts",
    "FolderData",
    "Function1dData",
    "NyuData",
    "NyuSampleData",
    "QtipsData",
    "SpiralsData",
]
