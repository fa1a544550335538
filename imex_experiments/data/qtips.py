"""Generate Q-tips: bars whose class is given by the markers at both ends.

A pixel in the middle of a bar can be labelled correctly only from both ends, so the data set
measures the field of view of a network. Source: IMEXnet, sec. 5.1.

Shapes: images (N, 1, S, S) uint8; labels (N, S, S) uint8.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

SPLITS = ("train", "val", "test")
CLASSES = ("background", "white-white", "white-black", "black-black")

BACKGROUND, BAR, WHITE, BLACK = 64, 128, 255, 1
MARKERS = torch.tensor(
    [[WHITE, WHITE], [WHITE, BLACK], [BLACK, BLACK]], dtype=torch.uint8
)
"""Grey values of the two ends, by class - 1."""

VERSION = 1
"""Part of every cache key. Raise it when the same seed gives other images."""

PLACEMENT_TRIES = 20
CHUNK_PIXELS = 2**22
"""Pixels that are drawn at a time, which bounds the memory."""


@dataclass(frozen=True)
class QtipsRecipe:
    """The parameters of generated images.

    Ranges are half open, as published: low <= value < high. An image has up to `objects`
    bars, which never overlap: a bar without a free place after 20 tries is left out.
    `centred` puts one bar in the middle. Otherwise a bar lies at a random place inside the
    image. With `touching` it lies at an edge instead, and extends over it by half of its
    width, so that half of a marker is visible. Raises ValueError for ranges that no image
    can satisfy.
    """

    image_size: int = 64
    objects: int = 1
    centred: bool = True
    lengths: Sequence[int] = (32, 60)
    widths: Sequence[int] = (4, 8)
    touching: bool = False

    def __post_init__(self) -> None:
        for name in ("lengths", "widths"):
            bounds = getattr(self, name)
            if len(bounds) != 2 or not 1 <= bounds[0] < bounds[1]:
                raise ValueError(
                    f"{name} must be [low, high), 1 <= low < high, got {bounds}"
                )
        if self.image_size < 1:
            raise ValueError(f"image_size must be >= 1, got {self.image_size}")
        longest, widest = self.lengths[1] - 1, self.widths[1] - 1
        if 2 * widest > self.lengths[0]:
            raise ValueError(
                f"lengths must leave room for two markers: the shortest bar is "
                f"{self.lengths[0]} pixels, the widest marker {widest}"
            )
        diagonal = math.hypot(longest, widest)
        if (longest if self.centred else diagonal) > self.image_size:
            raise ValueError(
                f"image_size must hold the longest bar, {longest} pixels"
                f"{'' if self.centred else ' in any direction'}, got {self.image_size}"
            )
        if self.centred and self.touching:
            raise ValueError(
                "touching=true: a bar at the border is not centred; give centred=false"
            )
        if self.objects < 1 or (self.centred and self.objects > 1):
            raise ValueError(
                f"objects must be >= 1, and 1 if centred, got {self.objects}"
            )


def split_seed(seed: int, split: str) -> int:
    """Return the seed of a split, which is different for all splits of all data seeds."""
    return len(SPLITS) * seed + SPLITS.index(split)


def make_qtips(number: int, recipe: QtipsRecipe, seed: int) -> dict[str, Tensor]:
    """Generate images and labels of the recipe, equal for equal seeds on all machines."""
    generator = torch.Generator().manual_seed(seed)
    chunk = max(1, CHUNK_PIXELS // recipe.image_size**2)
    drawn = [
        _draw(min(chunk, number - start), recipe, generator)
        for start in range(0, number, chunk)
    ]
    images, labels = (torch.cat(parts) for parts in zip(*drawn, strict=True))
    return {"images": images[:, None], "labels": labels}


def _draw(
    number: int, recipe: QtipsRecipe, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    size = recipe.image_size
    images = torch.full((number, size, size), BACKGROUND, dtype=torch.uint8)
    labels = torch.zeros(number, size, size, dtype=torch.uint8)
    for _ in range(recipe.objects):
        waiting = torch.arange(number)
        for _ in range(PLACEMENT_TRIES):
            bars = _Bars(len(waiting), recipe, generator)
            free = ~(bars.inside & (labels[waiting] > 0)).flatten(1).any(1)
            bars.paint(images, labels, waiting, free)
            waiting = waiting[~free]
            if not len(waiting):
                break
    return images, labels


class _Bars:
    """Random bars, one per image: masks (N, S, S) of the bar and of its two ends."""

    def __init__(
        self, number: int, recipe: QtipsRecipe, generator: torch.Generator
    ) -> None:
        def integers(low: int, high: int) -> Tensor:
            return torch.randint(low, high, (number, 1, 1), generator=generator)

        length, width = integers(*recipe.lengths), integers(*recipe.widths)
        angle = torch.deg2rad(integers(-180, 180).double())
        self.classes = integers(1, len(CLASSES))

        # Pixel centres in the frame of the bar. Rounding removes errors such as
        # cos(90 degrees) = 6e-17, which decide on pixels at an edge.
        cosine, sine = angle.cos(), angle.sin()
        row, column = self._centres(
            recipe, length, width, cosine.abs(), sine.abs(), generator
        )
        pixels = torch.arange(recipe.image_size, dtype=torch.float64) + 0.5
        y, x = pixels[None, :, None] - row, pixels[None, None, :] - column
        along = (cosine * x + sine * y).round(decimals=9)
        across = (cosine * y - sine * x).round(decimals=9)

        # Half-open intervals: an upright bar covers exactly length x width pixels.
        self.inside = (
            (-length / 2 <= along)
            & (along < length / 2)
            & (-width / 2 <= across)
            & (across < width / 2)
        )
        self.first = self.inside & (along < width - length / 2)
        self.last = self.inside & (along >= length / 2 - width)

    @staticmethod
    def _centres(
        recipe: QtipsRecipe,
        length: Tensor,
        width: Tensor,
        cosine: Tensor,
        sine: Tensor,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        middle = torch.full_like(cosine, recipe.image_size / 2)
        if recipe.centred:
            return middle, middle
        random = torch.rand(2, *cosine.shape, dtype=torch.float64, generator=generator)
        half_height = (length * sine + width * cosine) / 2
        half_width = (length * cosine + width * sine) / 2
        row = (2 * random[0] - 1) * (middle - half_height)
        column = (2 * random[1] - 1) * (middle - half_width)
        if recipe.touching:
            over_row = row.sign() * (middle - half_height + width / 2)
            over_column = column.sign() * (middle - half_width + width / 2)
            sideways = torch.rand(row.shape, generator=generator) < 0.5
            row = torch.where(sideways, row, over_row)
            column = torch.where(sideways, over_column, column)
        return middle + row, middle + column

    def paint(
        self, images: Tensor, labels: Tensor, indices: Tensor, chosen: Tensor
    ) -> None:
        """Draw the chosen bars into the images of the given indices."""
        indices, classes = indices[chosen], self.classes[chosen]
        markers = MARKERS[classes.flatten() - 1]
        image = torch.where(self.inside[chosen], BAR, images[indices])
        for side, end in enumerate((self.first, self.last)):
            image = torch.where(end[chosen], markers[:, side, None, None], image)
        images[indices] = image
        labels[indices] = torch.where(self.inside[chosen], classes, labels[indices]).to(
            torch.uint8
        )


def cache_key(number: int, recipe: QtipsRecipe, seed: int) -> dict[str, object]:
    """Return all parameters on which the result of `make_qtips` depends."""
    return {"version": VERSION, "number": number, "seed": seed, **asdict(recipe)}
