"""Random flips and crops of training images, the same again for the same seed and epoch.

Shapes: images (B, C, H, W), numbers (B,), the position of each image in its split.
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

    With `flips` an image is mirrored with probability 1/2. Then it gets a border of
    `crops` black pixels, and a window of its own size is cut out at a random place.
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
        """Return the images as an epoch shows them, of a split of `of` images.

        The result depends on seed, epoch and the numbers alone: not on the batches, the
        workers or what was drawn before, so a resumed run sees what it would have seen.
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
    """Return (images, 3) integers: mirrored or not, and where the crop begins."""
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
