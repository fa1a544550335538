"""Convert the frames of an NYU file to tensors: crop, resize, set invalid depths to 0.

Shapes: images (N, 3, H, W) uint8; depths (N, 1, H, W) float32, metres; masked (4,)
int64, the number of invalid depths of each kind.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from imex_experiments.data.nyu.file import read_frames
from imex_experiments.errors import DataError

VERSION = 1
"""Part of every cache key. Raise it when the same file gives other tensors."""

MASKED = ("NaN", "infinite", "zero", "negative")
"""Kinds of invalid depth, in the order in which they are counted."""


def averaging(size: int, new_size: int) -> np.ndarray:
    """Return the matrix (new_size, size) that averages the old pixels in each new one."""
    edges = np.arange(new_size + 1) * (size / new_size)
    pixels = np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(
        edges[:-1, None], pixels
    )
    weights = overlap.clip(min=0)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def resize_image(image: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resize an image (3, H, W) uint8 to (3, *size) by averaging over areas."""
    down, right = (averaging(*pair) for pair in zip(image.shape[1:], size, strict=True))
    mean = down @ image.astype(np.float32) @ right.T
    return np.rint(mean).clip(0, 255).astype(np.uint8)


def resize_depth(depth: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resize depths (H, W) to `size` by the mean of valid depths; 0 where none is valid."""
    down, right = (averaging(*pair) for pair in zip(depth.shape, size, strict=True))
    total = down @ depth @ right.T
    share = down @ (depth > 0).astype(np.float32) @ right.T
    return np.divide(total, share, out=np.zeros_like(total), where=share > 1e-6)


def mask_depth(depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return depths with 0 for invalid ones, and the numbers of NaN, inf, 0 and < 0."""
    kinds = (
        np.isnan(depth),
        np.isinf(depth),
        depth == 0,
        np.isfinite(depth) & (depth < 0),
    )
    counts = np.array([kind.sum() for kind in kinds])
    return np.where(np.isfinite(depth) & (depth > 0), depth, 0), counts


def convert_frames(
    path: Path,
    frames: Sequence[int],
    depth: str,
    image_size: Sequence[int],
    border: int,
) -> dict[str, Tensor]:
    """Return images and depths of the frames in the given order, read one at a time."""
    order = np.argsort(frames)  # read the file from its start to its end
    images = torch.empty(len(frames), 3, *image_size, dtype=torch.uint8)
    depths = torch.empty(len(frames), 1, *image_size)
    masked = np.zeros(len(MASKED), dtype=np.int64)
    found = read_frames(path, [frames[at] for at in order], depth)
    for at, (image, metres) in zip(order, found, strict=True):
        height, width = metres.shape
        if 2 * border >= min(height, width):
            raise DataError(
                f"{path}: data.border={border} leaves nothing of {height}x{width} pixels"
            )
        inside = np.s_[border : height - border, border : width - border]
        valid, counts = mask_depth(metres[inside])
        masked += counts
        images[at] = torch.from_numpy(resize_image(image[:, *inside], image_size))
        depths[at, 0] = torch.from_numpy(resize_depth(valid, image_size))
    return {"images": images, "depths": depths, "masked": torch.from_numpy(masked)}
