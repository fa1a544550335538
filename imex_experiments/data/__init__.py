"""LightningDataModules and the generators behind them."""

from imex_experiments.data.cifar10 import Cifar10Data
from imex_experiments.runs.errors import DataError
from imex_experiments.data.nyu_data import NyuData, NyuSampleData
from imex_experiments.data.qtips_data import QtipsData
from imex_experiments.data.toy import Function1dData, SpiralsData

__all__ = [
    "Cifar10Data",
    "DataError",
    "Function1dData",
    "NyuData",
    "NyuSampleData",
    "QtipsData",
    "SpiralsData",
]
