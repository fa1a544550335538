"""How a small change of the input grows on its way through a network.

Shapes: states (B, C, H, W).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from imex_experiments.networks import DynamicBlock, DynamicNet

SIZE = 1e-3
"""Of the change, relative to the images."""


@dataclass(frozen=True)
class Passage:
    """A part of a network: what leaves it, and what it did to a change of its input."""

    part: nn.Module
    norm: float
    """Root mean square of the state Y that leaves it."""
    change: float
    """|delta Y| behind the part over |delta| of the images."""
    growth: float
    """|delta Y| behind over |delta Y| before it; NaN where no change reached it."""


@torch.no_grad()
def passages(network: DynamicNet, images: Tensor, seed: int = 0) -> Iterator[Passage]:
    """All stages and the head, for images and the same with white noise of size 1e-3."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(images.shape, generator=generator).to(images)
    delta = SIZE * noise * images.norm() / noise.norm()
    clean, changed = images, images + delta
    before = first = delta.norm()
    for part in [*network.stages, network.head]:
        clean, changed = part(clean), part(changed)
        behind = (changed - clean).norm()
        norm = clean.square().mean().sqrt()
        yield Passage(part, float(norm), float(behind / first), float(behind / before))
        before = behind


@torch.no_grad()
def growth_atlas(
    f: Callable[[Tensor], Tensor],
    y: Tensor,
    alphas: Iterable[float],
    hs: Iterable[float],
    steps: int = 10,
) -> NDArray[np.floating]:
    """|delta Y_n| / |delta Y_0| of Y_{j+1} = Y_j + h S f(Y_j), S = 1 / (1 + h alpha).

    Shape (hs, alphas); n = `steps`, delta Y_0 white noise of size 1e-6.
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


def block_growth(network: DynamicNet, images: Tensor) -> list[Passage]:
    """Those of the blocks."""
    every = passages(network, images)
    return [passage for passage in every if isinstance(passage.part, DynamicBlock)]
