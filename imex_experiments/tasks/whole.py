"""Whole images of any size through a network: in parts, or in overlapping tiles.

Shapes: images (B, C, H, W); outputs (B, K, H, W) for the same H and W.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Call = Callable[[Tensor], Tensor]

SMALLEST_TILE = 8

OUTER = 0.25
"""The share of an overlap, at the border of a tile, that is not used."""


def in_parts(call: Call, images: Tensor, pixels: int) -> Tensor:
    """Return call(images), computed for at most so many pixels at a time.

    At least one image is in each part, so `call` must treat images one by one.
    """
    number = max(1, pixels // (images.shape[-2] * images.shape[-1]))
    if len(images) <= number:
        return call(images)
    return torch.cat([call(part) for part in images.split(number)])


def tiled(
    call: Call,
    images: Tensor,
    tile: int,
    overlap: int | None = None,
    multiple: int = 1,
) -> Tensor:
    """Return the outputs of overlapping tiles of `tile` x `tile` pixels, blended.

    Where two tiles overlap, the weight of one falls linearly while that of the other
    rises. The outer quarter of an overlap has weight 0, because there a tile does not see
    the pixels on its other side. So the result is that of the whole image, up to rounding,
    if the output at a pixel depends on pixels less than `overlap / 4` away. `overlap` is a
    quarter of the tile by default. Tiles start at multiples of `multiple`, because a
    network that coarsens by it would coarsen others differently; the last tile of a side
    may be larger by as much. Raises ValueError for a tile below SMALLEST_TILE, and unless
    0 < overlap <= tile / 2.
    """
    overlap = tile // 4 if overlap is None else overlap
    if tile < SMALLEST_TILE:
        raise ValueError(f"tile must be >= {SMALLEST_TILE} pixels, got {tile}")
    if not 0 < overlap <= tile // 2:
        raise ValueError(f"overlap must be in 1 ... {tile // 2}, got {overlap}")
    height, width = images.shape[-2:]
    total: Tensor | None = None
    weights = torch.zeros(height, width, dtype=torch.float64)
    for rows in _spans(height, tile, overlap, multiple):
        for columns in _spans(width, tile, overlap, multiple):
            output = call(images[..., rows, columns])
            if total is None:
                total = output.new_zeros((*output.shape[:-2], height, width))
            rise = _ramp(rows, height, overlap)[:, None]
            weight = rise * _ramp(columns, width, overlap)
            total[..., rows, columns] += weight.to(output) * output
            weights[rows, columns] += weight
    assert total is not None
    return total / weights.to(total)


def _spans(side: int, tile: int, overlap: int, multiple: int) -> list[slice]:
    """Return the pixels of tiles that cover a side, which the last one reaches."""
    step = max(multiple, (tile - overlap) // multiple * multiple)
    last = max(0, side - tile) // multiple * multiple
    return [slice(i, i + tile) for i in range(0, last, step)] + [slice(last, side)]


def _ramp(span: slice, side: int, overlap: int) -> Tensor:
    """Return the weight of each row of a tile; it falls only where there is a neighbour."""
    length = span.stop - span.start
    steps = torch.arange(length, dtype=torch.float64) + 0.5
    outer = OUTER * overlap
    ramp = torch.ones(length, dtype=torch.float64)
    if span.start > 0:
        ramp *= ((steps - outer) / (overlap - 2 * outer)).clamp(0, 1)
    if span.stop < side:
        ramp *= ((length - steps - outer) / (overlap - 2 * outer)).clamp(0, 1)
    return ramp
