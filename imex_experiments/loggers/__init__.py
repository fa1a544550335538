"""Lightning loggers of this package, beside those that come with Lightning."""

from imex_experiments.loggers.csv_logger import CsvLogger

__all__ = ["CsvLogger"]
