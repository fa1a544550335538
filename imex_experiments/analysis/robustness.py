"""Attacks: the change of bounded size that makes a loss large.

Shapes: images (B, C, H, W) in [0, 1]; a loss maps images to (B,), one value for each; sizes
are |delta|_inf or |delta|_2 of each image by itself.
"""

import copy
import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from imex_experiments.networks import DynamicNet
from imex_experiments.terms.positive import Chosen

Loss = Callable[[Tensor], Tensor]
Norm = Literal["linf", "l2"]

SMALLEST_STEP = 1 / 50
"""Of an attack, relative to its size."""


def fgsm(loss: Loss, images: Tensor, epsilon: float, norm: Norm) -> Tensor:
    """One step of full size along the gradient's sign, or direction in l2.

    ValueError unless epsilon >= 0 is finite. Source: Goodfellow et al. (2015).
    """
    _check(epsilon)
    step = epsilon * _ascent(_gradient(loss, images), norm)
    return (images + step).clamp(0, 1)


def pgd(
    loss: Loss,
    images: Tensor,
    epsilon: float,
    norm: Norm,
    steps: int = 10,
    restarts: int = 1,
    seed: int = 0,
    start: Tensor | None = None,
) -> Tensor:
    """Projected gradient ascent, the worst of all iterates of all starts, image by image.

    Exact gradients; steps from epsilon down to epsilon / 50, because a loss that saturates
    is rough at the size of the ball. It starts from the images, whose first step is FGSM,
    from a `start` found in a smaller ball, and `restarts` times at random on the rim.
    ValueError unless epsilon >= 0 is finite. Source: Madry et al. (2018).
    """
    _check(epsilon)
    generator = torch.Generator().manual_seed(seed)
    worst = _Worst(loss, images)
    starts = [images] if start is None else [images, start]
    for _ in range(restarts):
        change = _random(images, epsilon, norm, generator)
        starts.append((images + change).clamp(0, 1))
    for x in starts:
        worst.see(x)
        for step in range(steps):
            size = epsilon * SMALLEST_STEP ** (step / steps)
            x = x + size * _ascent(_gradient(loss, x), norm)
            x = (images + _project(x - images, epsilon, norm)).clamp(0, 1)
            worst.see(x)
    return worst.images


def random_search(
    loss: Loss, images: Tensor, epsilon: float, norm: Norm, tries: int, seed: int = 0
) -> Tensor:
    """The worst of some random changes of the largest size, image by image.

    It needs no gradient: where it beats `pgd`, gradients are masked (Athalye et al. 2018).
    """
    _check(epsilon)
    generator = torch.Generator().manual_seed(seed)
    worst = _Worst(loss, images)
    for _ in range(tries):
        change = _random(images, epsilon, norm, generator)
        worst.see((images + change).clamp(0, 1))
    return worst.images


class _Worst:
    """For each image the candidate with the largest loss so far."""

    def __init__(self, loss: Loss, images: Tensor) -> None:
        self.loss, self.images = loss, images.detach()
        with torch.no_grad():
            self.values = loss(images)

    @torch.no_grad()
    def see(self, candidates: Tensor) -> None:
        values = self.loss(candidates)
        worse = values > self.values
        self.values = torch.where(worse, values, self.values)
        self.images = torch.where(worse[:, None, None, None], candidates, self.images)


def _gradient(loss: Loss, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(x).sum(), x)
    return gradient


def _ascent(gradient: Tensor, norm: Norm) -> Tensor:
    """The change of size 1 along which the loss grows fastest."""
    if norm == "linf":
        return gradient.sign()
    return gradient / _length(gradient).clamp_min(1e-30)


def _project(change: Tensor, epsilon: float, norm: Norm) -> Tensor:
    if norm == "linf":
        return change.clamp(-epsilon, epsilon)
    return change * (epsilon / _length(change).clamp_min(1e-30)).clamp(max=1)


def _random(
    like: Tensor, epsilon: float, norm: Norm, generator: torch.Generator
) -> Tensor:
    """A random change of the largest size: a corner of the ball in linf."""
    noise = torch.randn(like.shape, generator=generator).to(like)
    return epsilon * _ascent(noise, norm)


def _length(change: Tensor) -> Tensor:
    return change.flatten(1).norm(dim=1)[:, None, None, None]


def _check(epsilon: float) -> None:
    if not (epsilon >= 0 and math.isfinite(epsilon)):
        raise ValueError(f"epsilon must be >= 0 and finite, got {epsilon}")


def with_steps_of(network: DynamicNet, factor: float) -> nn.Module:
    """A copy whose steps are `factor` times as long; ValueError unless factor > 0."""
    if not (factor > 0 and math.isfinite(factor)):
        raise ValueError(f"factor must be > 0 and finite, got {factor}")
    changed = copy.deepcopy(network)
    for block in changed.blocks:
        unit = 1.0 if block.unit is None else float(block.unit().detach())
        block.unit = Chosen(factor * unit)
    return changed.eval()
