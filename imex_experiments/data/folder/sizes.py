"""Resize pictures, and cut windows out of them.

Shapes: images (C, H, W) uint8 or float32; targets (..., H, W), of any type.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

Size = tuple[int, int]
"""Height and width in pixels."""


def resized_image(image: Tensor, size: Size) -> Tensor:
    """Return an image of another size, averaged where it becomes smaller."""
    if image.shape[-2:] == size:
        return image
    smooth = F.interpolate(
        image[None].float(), size, mode="bilinear", antialias=True, align_corners=False
    )[0]
    return smooth.round().byte() if image.dtype == torch.uint8 else smooth


def resized_target(target: Tensor, size: Size) -> Tensor:
    """Return labels or depths of another size, each the one of the nearest pixel.

    Neither a label nor a depth behind an edge has a sensible mean.
    """
    height, width = target.shape[-2:]
    if (height, width) == size:
        return target
    rows = ((torch.arange(size[0]) + 0.5) * height / size[0]).long()
    columns = ((torch.arange(size[1]) + 0.5) * width / size[1]).long()
    return target[..., rows[:, None], columns]


def window(picture: Tensor, top: int, left: int, size: Size) -> Tensor:
    """Return the window of a size whose first pixel is (top, left)."""
    return picture[..., top : top + size[0], left : left + size[1]]


def centred(picture: Tensor, size: Size) -> Tensor:
    """Return the window of a size in the middle of a picture."""
    height, width = picture.shape[-2:]
    return window(picture, (height - size[0]) // 2, (width - size[1]) // 2, size)
