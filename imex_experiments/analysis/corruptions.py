"""Corruptions of images, each with a level; level 0 returns the images unchanged.

Shapes: images (B, C, H, W), grey values 0 to 255 as floating point. The unit of a level is
that of the corruption.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

WHITE = 255.0


def gaussian_noise(images: Tensor, level: float) -> Tensor:
    """Add white noise of standard deviation `level` in grey values, and clip."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(images.shape, generator=generator).to(images)
    return (images + level * noise).clamp(0, WHITE)


def blur(images: Tensor, level: float) -> Tensor:
    """Convolve with a Gaussian of standard deviation `level` in pixels, edges repeated."""
    if level == 0:
        return images
    reach = max(1, math.ceil(3 * level))
    offsets = torch.arange(-reach, reach + 1).to(images)
    taps = torch.exp(-(offsets**2) / (2 * level**2))
    taps = taps / taps.sum()
    channels = images.shape[1]
    rows = taps[None, None, :, None].repeat(channels, 1, 1, 1)
    padded = F.pad(images, [reach] * 4, mode="replicate")
    padded = F.conv2d(padded, rows, groups=channels)
    return F.conv2d(padded, rows.transpose(-1, -2), groups=channels)


def less_contrast(images: Tensor, level: float) -> Tensor:
    """Multiply the deviations from the mean of each channel by 1 - level."""
    mean = images.mean((-2, -1), keepdim=True)
    return images - level * (images - mean)


def shift(images: Tensor, level: float) -> Tensor:
    """Add `level` grey values, and clip."""
    return (images + level).clamp(0, WHITE)


def occlusion(images: Tensor, level: float) -> Tensor:
    """Cover a square of `level` x `level` pixels in the middle with the first pixel."""
    side = round(level)
    top, left = ((s - side) // 2 for s in images.shape[-2:])
    hidden = images.clone()
    hidden[..., top : top + side, left : left + side] = images[..., :1, :1]
    return hidden


@dataclass(frozen=True)
class Corruption:
    """A corruption, the unit of its level, and the levels to evaluate."""

    apply: Callable[[Tensor, float], Tensor]
    unit: str
    levels: tuple[float, ...]


CORRUPTIONS = {
    "Gaussian noise": Corruption(gaussian_noise, "grey values", (0, 5, 10, 20, 40, 80)),
    "blur": Corruption(blur, "px", (0, 0.5, 1, 1.5, 2, 3)),
    "loss of contrast": Corruption(less_contrast, "1", (0, 0.1, 0.2, 0.4, 0.6, 0.8)),
    "shift of grey values": Corruption(shift, "grey values", (0, 5, 10, 20, 40, 60)),
    "occlusion of the middle": Corruption(occlusion, "px", (0, 4, 8, 12, 16, 24)),
}
