"""Networks: blocks of integrated layers, connectors, heads, and a U-Net as baseline."""

from imex_experiments.networks.dynamic_block import DynamicBlock
from imex_experiments.networks.dynamic_net import DynamicNet
from imex_experiments.networks.refine import refine_knots, refine_steps
from imex_experiments.networks.unet import UNet
from imex_experiments.terms.positive import FIRST_ALPHA, FIRST_H

__all__ = [
    "FIRST_ALPHA",
    "FIRST_H",
    "DynamicBlock",
    "DynamicNet",
    "UNet",
    "refine_knots",
    "refine_steps",
]
