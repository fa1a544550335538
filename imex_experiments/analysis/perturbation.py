"""How a small change of the input grows on its way through a network.

Shapes: states (B, C, H, W).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
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
    """|delta Y| behind over |delta Y| before it."""


@torch.no_grad()
def passages(network: DynamicNet, images: Tensor, seed: int = 0) -> Iterator[Passage]:
    """All stages and the head, for images and the same with white noise of size 1e-3."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(images.shape, generator=generator).to(images)
    delta = SIZE * noise * images.norm() / noise.norm()
    clean, changed = images, images + delta
    before = first = float(delta.norm())
    for part in [*network.stages, network.head]:
        clean, changed = part(clean), part(changed)
        behind = float((changed - clean).norm())
        norm = float(clean.square().mean().sqrt())
        yield Passage(part, norm, behind / first, behind / before)
        before = behind


def block_growth(network: DynamicNet, images: Tensor) -> list[Passage]:
    """Those of the blocks."""
    every = passages(network, images)
    return [passage for passage in every if isinstance(passage.part, DynamicBlock)]
