"""Refine a trained network in time: more steps, or more knots of its weights."""

import copy

from imex_experiments.integrators import TimeGrid
from imex_experiments.networks.dynamic_net import DynamicNet


def refine_steps(network: DynamicNet, factor: int = 2) -> DynamicNet:
    """Return a copy with `factor` times the steps and the same weights theta(t).

    The copy solves the same ODE with smaller steps, so its output differs by the
    truncation error. Raises ValueError for factor < 1.
    Source: DynamicBlocks, setTimeSteps.
    """
    finer = copy.deepcopy(network)
    for block in finer.blocks:
        block.grid = block.grid.refined(factor)
    return finer


def refine_knots(network: DynamicNet, factor: int = 2) -> DynamicNet:
    """Return a copy with `factor` times the knots, interpolated: its output is the same.

    Raises ValueError for factor < 1.
    """
    finer = copy.deepcopy(network)
    for block in finer.blocks:
        knots = TimeGrid(block.layers.knots).refined(factor).points
        block.layers = block.layers.refined(knots)
        if block.operators is not None:
            block.operators = block.operators.refined(knots)
    return finer
