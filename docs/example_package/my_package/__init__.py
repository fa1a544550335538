"""Classes of one's own for imex-experiments, one of each kind."""

from my_package.callback import WeightNorm
from my_package.data import BlobsData
from my_package.integrator import SplitEuler
from my_package.layer import GatedLayer
from my_package.network import PlainNet
from my_package.operator import FractionalDiffusion
from my_package.task import FocalTask

__all__ = [
    "BlobsData",
    "FocalTask",
    "FractionalDiffusion",
    "GatedLayer",
    "PlainNet",
    "SplitEuler",
    "WeightNorm",
]
