"""Networks: blocks of integrated layers, what connects them, and a coarsening baseline."""

from imex_experiments.networks.dynamic_block import DynamicBlock
from imex_experiments.networks.dynamic_net import DynamicNet
from imex_experiments.networks.refine import refine_knots, refine_steps
from imex_experiments.networks.unet import UNet

__all__ = ["DynamicBlock", "DynamicNet", "UNet", "refine_knots", "refine_steps"]
