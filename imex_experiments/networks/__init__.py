"""Networks: blocks of integrated layers, connectors, heads, a U-Net, and networks of others."""

from imex_experiments.networks.any_size import AnySize
from imex_experiments.networks.backbones import (
    Imexified,
    MonaiSegResNet,
    MonaiUNet,
    Smp,
    TorchvisionSegmentation,
)
from imex_experiments.networks.dynamic_block import DynamicBlock
from imex_experiments.networks.dynamic_net import DynamicNet
from imex_experiments.networks.refine import refine_knots, refine_steps
from imex_experiments.networks.unet import UNet
from imex_experiments.terms.positive import FIRST_ALPHA, FIRST_H

__all__ = [
    "FIRST_ALPHA",
    "FIRST_H",
    "AnySize",
    "DynamicBlock",
    "DynamicNet",
    "Imexified",
    "MonaiSegResNet",
    "MonaiUNet",
    "Smp",
    "TorchvisionSegmentation",
    "UNet",
    "refine_knots",
    "refine_steps",
]
