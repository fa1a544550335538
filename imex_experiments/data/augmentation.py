"""Flip and crop training images at random, reproducibly from seed and epoch.

Shapes: images (B, C, H, W), numbers (B,), the index of each image in its split.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class FlipsAndCrops:
    """Mirror images left to right, and crop them out of a black border.

    With `flips` an image is mirrored with probability 1/2. Then a border of `crops` black
    pixels is added, and a window of the original size is cut out at a random place. Raises
    ValueError for crops < 0.
    """

    flips: bool = False
    crops: int = 0

    def __post_init__(self) -> None:
        if self.crops < 0:
            raise ValueError(f"crops must be >= 0, got {self.crops}")

    def __bool__(self) -> bool:
        return self.flips or self.crops > 0

    def __call__(
        self, images: Tensor, numbers: Tensor, of: int, seed: int, epoch: int
    ) -> Tensor:
        """Return images as they are in an epoch; their split has `of` images.

        The result depends on seed, epoch and numbers alone, not on batches, workers or
        earlier draws. A resumed run therefore sees the images of an uninterrupted one.
        """
        flipped, down, right = _draws(of, self.crops, seed, epoch, images.device)[
            numbers
        ].unbind(1)
        if self.flips:
            images = torch.where(
                flipped.bool()[:, None, None, None], images.flip(3), images
            )
        if self.crops:
            images = _windows(
                F.pad(images, [self.crops] * 4), down, right, images.shape
            )
        return images


@lru_cache(maxsize=1)
def _draws(
    images: int, crops: int, seed: int, epoch: int, device: torch.device
) -> Tensor:
    """Draw (images, 3) integers: 1 for mirrored, first row and first column of the crop."""
    rng = np.random.default_rng([seed, epoch, 1])  # [seed, epoch] draws the order
    highest = [1, 2 * crops, 2 * crops]
    draws = rng.integers(0, highest, size=(images, 3), endpoint=True)
    return torch.from_numpy(draws).to(device)


def _windows(y: Tensor, down: Tensor, right: Tensor, shape: torch.Size) -> Tensor:
    """Cut one window of `shape` out of each image, its corner at (down, right)."""
    batch, channels, height, width = (torch.arange(n, device=y.device) for n in shape)
    rows, columns = down[:, None] + height, right[:, None] + width
    return y[
        batch[:, None, None, None],
        channels[:, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]
