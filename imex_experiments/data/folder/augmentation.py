"""Change training images and their targets at random, both in the same way.

Shapes: images (C, H, W) uint8 or float32; targets are labels (H, W) uint8, or depths
(1, H, W) float32 in metres.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from imex_experiments.data.folder.labels import IGNORED
from imex_experiments.data.folder.sizes import Size, window

WHITE = 255

Rng = np.random.Generator


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a training image; zeros and ones leave it as it is.

    - `flip`: mirrored along this axis with probability 1/2
    - `rotate`: by up to so many degrees; `scale`: by a factor of 1 / scale to scale
    - `jitter`: contrast, and the saturation and hue of colours, by up to this share
    - `blur`: Gaussian of a deviation of up to so many pixels
    - `noise`, `shift`: Gaussian noise, and a shift of all grey values, of up to so many
      standard deviations of the training images
    - `cutout`: a square of up to this share of the shorter side becomes the mean colour

    Flip, rotation and scale move the target too. Labels that come from outside of the
    image are IGNORED, and depths are 0; an object that is seen at twice the size is at
    half the distance. Raises ValueError for values outside of their range.
    """

    flip: Literal["none", "horizontal", "vertical", "both"] = "none"
    rotate: float = 0.0
    scale: float = 1.0
    jitter: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    shift: float = 0.0
    cutout: float = 0.0

    def __post_init__(self) -> None:
        highest = {"rotate": 180, "scale": 10, "jitter": 1, "cutout": 1}
        for entry in fields(self)[1:]:
            value, low = getattr(self, entry.name), float(entry.default)  # type: ignore[arg-type]
            high = highest.get(entry.name, 100)
            if not low <= value <= high:
                raise ValueError(
                    f"{entry.name} must be in {low:g} ... {high}, got {value}"
                )
        if self.flip not in ("none", "horizontal", "vertical", "both"):
            raise ValueError(
                f"flip must be none, horizontal, vertical or both, got {self.flip!r}"
            )

    @property
    def warps(self) -> bool:
        """Return True if pixels have to be interpolated."""
        return self.rotate > 0 or self.scale > 1

    @property
    def colours(self) -> bool:
        """Return True if the values of pixels change."""
        changes = self.jitter, self.blur, self.noise, self.shift, self.cutout
        return max(changes) > 0


@dataclass(frozen=True)
class Transform:
    """An augmentation for pictures with known statistics, cut to windows of a size.

    With a size of None a window is the whole image. `mean` and `std` are those of the
    training images, one number per channel.
    """

    augmentation: Augmentation = field(default_factory=Augmentation)
    size: Size | None = None
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)

    def __call__(
        self, image: Tensor, target: Tensor, seed: int, epoch: int, index: int
    ) -> tuple[Tensor, Tensor]:
        """Return an image and its target as they are in an epoch.

        The result depends on the pictures, seed, epoch and index alone, not on earlier
        draws, on the process, or on its number of threads.
        """
        # [seed, epoch] draws the order of the epoch.
        rng = np.random.default_rng([seed, epoch, index + 1])
        with one_thread():
            image, target = self._moved(image, target, rng)
            if not self.augmentation.colours:
                return image, target
            changed = self._coloured(image.float(), rng)
        if image.dtype == torch.uint8:
            changed = changed.round().clamp(0, WHITE).byte()
        return changed, target

    def _moved(self, image: Tensor, target: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        """Return image and target flipped, and cut or warped to a window."""
        given = self.augmentation
        size = self.size or (int(image.shape[-2]), int(image.shape[-1]))
        angle = math.radians(rng.uniform(-given.rotate, given.rotate))
        scale = given.scale ** rng.uniform(-1, 1)
        # The window at scale 1 and angle 0 lies inside of the image, where it fits.
        spare = [
            max(0.0, n - m / scale) for n, m in zip(image.shape[-2:], size, strict=True)
        ]
        place = [rng.uniform(0, 1) for _ in spare]
        mirrored = rng.random(2) < 0.5
        if given.warps:
            image, target = _warped(image, target, size, angle, scale, spare, place)
        else:
            top, left = (
                int(p * (room + 1)) for p, room in zip(place, spare, strict=True)
            )
            image, target = (window(p, top, left, size) for p in (image, target))
        axes = [
            axis
            for axis, name, yes in zip(
                (-2, -1), ("vertical", "horizontal"), mirrored, strict=True
            )
            if yes and given.flip in (name, "both")
        ]
        return image.flip(axes), target.flip(axes)

    def _coloured(self, image: Tensor, rng: Rng) -> Tensor:
        """Return an image (C, H, W) float32 with other colours."""
        given = self.augmentation
        mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (self.mean, self.std))
        if given.jitter > 0:
            contrast, saturation, hue = rng.uniform(-given.jitter, given.jitter, 3)
            image = (image - mean) * (1 + contrast) + mean
            if len(image) == 3:
                image = _other_colours(image, 1 + saturation, math.pi * hue)
        if given.blur > 0:
            image = _blurred(image, rng.uniform(0, given.blur))
        if given.noise > 0:
            noise = rng.standard_normal(image.shape, np.float32)
            image = image + rng.uniform(0, given.noise) * std * torch.from_numpy(noise)
        if given.shift > 0:
            image = image + rng.uniform(-given.shift, given.shift) * std
        if given.cutout > 0:
            height, width = image.shape[-2:]
            side = round(rng.uniform(0, given.cutout) * min(height, width))
            top = int(rng.integers(0, height - side, endpoint=True))
            left = int(rng.integers(0, width - side, endpoint=True))
            image = image.clone()
            window(image, top, left, (side, side)).copy_(mean.expand(-1, side, side))
        return image


def _warped(
    image: Tensor,
    target: Tensor,
    size: Size,
    angle: float,
    scale: float,
    spare: Sequence[float],
    place: Sequence[float],
) -> tuple[Tensor, Tensor]:
    """Return a rotated and enlarged window of an image, and of its target by nearest."""
    from kornia.geometry.transform import warp_affine  # takes half a second to import

    middle = [
        (p * room + m / scale / 2 if room else n / 2) - 0.5
        for n, m, room, p in zip(image.shape[-2:], size, spare, place, strict=True)
    ]
    cosine, sine = scale * math.cos(angle), scale * math.sin(angle)
    turn = torch.tensor([[cosine, -sine], [sine, cosine]], dtype=torch.float64)
    source = torch.tensor([middle[1], middle[0]], dtype=torch.float64)
    centre = torch.tensor([size[1] - 1, size[0] - 1], dtype=torch.float64) / 2
    matrix = torch.cat([turn, (centre - turn @ source)[:, None]], dim=1).float()[None]
    moved = warp_affine(image[None].float(), matrix, size, "bilinear", "reflection")[0]
    if image.dtype == torch.uint8:
        moved = moved.round().clamp(0, WHITE).byte()
    labels = target.dtype == torch.uint8
    # Labels are warped plus one, so that the zeros outside are told from class 0.
    planes = (target.float() + 1)[None, None] if labels else target[None]
    warped = warp_affine(planes, matrix, size, "nearest", "zeros")[0]
    if labels:
        return moved, torch.where(warped[0] > 0, warped[0] - 1, IGNORED).byte()
    return moved, warped / scale


def _other_colours(image: Tensor, saturation: float, hue: float) -> Tensor:
    """Return a colour image with its saturation multiplied and its hue turned by radians."""
    from kornia.enhance import adjust_hue, adjust_saturation

    white = float(image.max().clamp_min(1.0))
    colours = (image / white).clamp(0, 1)[None]
    return white * adjust_hue(adjust_saturation(colours, saturation), hue)[0]


def _blurred(image: Tensor, deviation: float) -> Tensor:
    """Return an image blurred by a Gaussian of a deviation in pixels."""
    from kornia.filters import gaussian_blur2d

    reach = math.ceil(3 * deviation)
    if reach == 0 or reach >= min(image.shape[-2:]):
        return image
    return gaussian_blur2d(image[None], 2 * reach + 1, (deviation, deviation))[0]


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread, as data workers do, so that both round in the same order."""
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
