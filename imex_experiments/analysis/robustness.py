"""Adversarial attacks: find a change of bounded size that maximises a loss.

Shapes: images (B, C, H, W) in [0, 1]; a loss maps images to (B,), one value per image. The
size of a change delta is |delta|_inf or |delta|_2 of each image.
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
"""Length of the last step of `pgd`, relative to epsilon."""


def fgsm(loss: Loss, images: Tensor, epsilon: float, norm: Norm) -> Tensor:
    """Return the images after one step of size epsilon along the gradient.

    The step is along the sign of the gradient (linf) or along the gradient (l2). Raises
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
    """Return, for each image, the iterate of projected gradient ascent with largest loss.

    The ascent starts from the images, from `start` if given (such as the result for a
    smaller epsilon), and from `restarts` random changes of size epsilon. Step lengths fall
    from epsilon towards epsilon / 50, so that the first step from the images is `fgsm`
    while later ones resolve a loss that varies within the ball. Gradients are exact.
    Raises ValueError unless epsilon >= 0 is finite. Source: Madry et al. (2018).
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
    """Return, for each image, the one of `tries` random changes with the largest loss.

    The changes have size epsilon. No gradient is used: a larger loss than that of `pgd`
    shows that the gradients are masked (Athalye et al. 2018). Raises ValueError unless
    epsilon >= 0 is finite.
    """
    _check(epsilon)
    generator = torch.Generator().manual_seed(seed)
    worst = _Worst(loss, images)
    for _ in range(tries):
        change = _random(images, epsilon, norm, generator)
        worst.see((images + change).clamp(0, 1))
    return worst.images


class _Worst:
    """The candidate with the largest loss so far, for each image."""

    def __init__(self, loss: Loss, images: Tensor) -> None:
        self.loss, self.images = loss, images.detach()
        with torch.no_grad():
            self.values = loss(images)

    @torch.no_grad()
    def see(self, candidates: Tensor) -> None:
        """Keep each candidate whose loss is larger than the largest so far."""
        values = self.loss(candidates)
        worse = values > self.values
        self.values = torch.where(worse, values, self.values)
        self.images = torch.where(worse[:, None, None, None], candidates, self.images)


def _gradient(loss: Loss, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(x).sum(), x)
    return gradient


def _ascent(gradient: Tensor, norm: Norm) -> Tensor:
    """Return the change of size 1 along which the loss grows fastest."""
    if norm == "linf":
        return gradient.sign()
    return gradient / _length(gradient).clamp_min(1e-30)


def _project(change: Tensor, epsilon: float, norm: Norm) -> Tensor:
    """Return the nearest change whose size is at most epsilon."""
    if norm == "linf":
        return change.clamp(-epsilon, epsilon)
    return change * (epsilon / _length(change).clamp_min(1e-30)).clamp(max=1)


def _random(
    like: Tensor, epsilon: float, norm: Norm, generator: torch.Generator
) -> Tensor:
    """Return a random change of size epsilon; in linf it is a corner of the ball."""
    noise = torch.randn(like.shape, generator=generator).to(like)
    return epsilon * _ascent(noise, norm)


def _length(change: Tensor) -> Tensor:
    return change.flatten(1).norm(dim=1)[:, None, None, None]


def _check(epsilon: float) -> None:
    if not (epsilon >= 0 and math.isfinite(epsilon)):
        raise ValueError(f"epsilon must be >= 0 and finite, got {epsilon}")


def with_steps_of(network: DynamicNet, factor: float) -> nn.Module:
    """Return a copy in evaluation mode, with steps `factor` times as long.

    Raises ValueError unless factor > 0 is finite.
    """
    if not (factor > 0 and math.isfinite(factor)):
        raise ValueError(f"factor must be > 0 and finite, got {factor}")
    changed = copy.deepcopy(network)
    for block in changed.blocks:
        block.unit = Chosen(factor * block.time_scale)
    return changed.eval()
