"""From a trained network to a finer one that starts as the same function of time."""

import copy

from imex_experiments.integrators import TimeGrid
from imex_experiments.networks.dynamic_net import DynamicNet


def refine_steps(network: DynamicNet, factor: int = 2) -> DynamicNet:
    """A copy with `factor` times the steps: the same weights at the same times.

    It follows the same ODE more closely, so its output moves by the truncation error.
    ValueError for factor < 1. Source: DynamicBlocks, setTimeSteps.
    """
    finer = copy.deepcopy(network)
    for block in finer.blocks:
        block.grid = block.grid.refined(factor)
    return finer


def refine_knots(network: DynamicNet, factor: int = 2) -> DynamicNet:
    """A copy with `factor` times the knots, by interpolation: the same output.

    ValueError for factor < 1.
    """
    finer = copy.deepcopy(network)
    for block in finer.blocks:
        knots = TimeGrid(block.layers.knots).refined(factor).points
        block.layers = block.layers.refined(knots)
        if block.operators is not None:
            block.operators = block.operators.refined(knots)
    return finer
