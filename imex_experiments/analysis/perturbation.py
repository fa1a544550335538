"""Measure how a small change of the input grows on its way through a network.

Shapes: states Y (B, C, H, W); delta Y is the change of a state.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from imex_experiments.networks import DynamicBlock, DynamicNet

SIZE = 1e-3
"""Norm of the change of the images, relative to the images."""


@dataclass(frozen=True)
class PartGrowth:
    """The growth of a change at one part of a network: a connector, a block or the head."""

    part: nn.Module
    norm: float
    """The root mean square of the output Y of the part."""
    change: float
    """|delta Y| of the output, over |delta| of the images."""
    growth: float
    """|delta Y| of the output, over |delta Y| of the input; NaN if the latter is 0."""


@torch.no_grad()
def part_growths(
    network: DynamicNet, images: Tensor, seed: int = 0
) -> Iterator[PartGrowth]:
    """Yield the growth at all stages and at the head.

    The change is white noise of relative size SIZE, added to all images.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(images.shape, generator=generator).to(images)
    delta = SIZE * noise * images.norm() / noise.norm()
    clean, changed = images, images + delta
    before = first = delta.norm()
    for part in [*network.stages, network.head]:
        clean, changed = part(clean), part(changed)
        behind = (changed - clean).norm()
        norm = clean.square().mean().sqrt()
        yield PartGrowth(
            part, float(norm), float(behind / first), float(behind / before)
        )
        before = behind


@torch.no_grad()
def growth_atlas(
    f: Callable[[Tensor], Tensor],
    y: Tensor,
    alphas: Iterable[float],
    hs: Iterable[float],
    steps: int = 10,
) -> NDArray[np.floating]:
    """Return |delta Y_n| / |delta Y_0| after n = `steps` IMEX steps, (hs, alphas).

    The steps are Y_{j+1} = Y_j + h S f(Y_j) with L = alpha I, S = 1 / (1 + h alpha), from
    Y_0 = y. delta Y_0 is white noise of relative size 1e-6.
    """
    noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(0)).to(y)
    delta = 1e-6 * noise * (1 + y.norm()) / noise.norm()

    def grown(alpha: float, h: float) -> float:
        states = torch.cat([y, y + delta])
        for _ in range(steps):
            states = states + h / (1 + h * alpha) * f(states)
        clean, changed = states.chunk(2)
        return float((changed - clean).norm() / delta.norm())

    return np.array([[grown(alpha, h) for alpha in alphas] for h in hs])


def block_growths(network: DynamicNet, images: Tensor) -> list[PartGrowth]:
    """Return the growth at the integrated blocks, first to last."""
    every = part_growths(network, images)
    return [growth for growth in every if isinstance(growth.part, DynamicBlock)]
