"""LightningDataModules and the generators behind them."""

from imex_experiments.data.errors import DataError
from imex_experiments.data.nyu_data import NyuData, NyuSampleData
from imex_experiments.data.qtips_data import QtipsData

__all__ = ["DataError", "NyuData", "NyuSampleData", "QtipsData"]
