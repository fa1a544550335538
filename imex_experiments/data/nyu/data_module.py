"""data=nyu_depth and data=nyu_sample: an image and the depth of each of its pixels."""

import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from imex_experiments.data.cache import Layout, cached
from imex_experiments.data.nyu.camera import WHITE_BORDER
from imex_experiments.data.nyu.conversion import MASKED, VERSION, convert_frames
from imex_experiments.data.nyu.file import (
    FRAME,
    PUBLISHED_MD5,
    NyuContents,
    mat_version,
    read_contents,
    require_published,
)
from imex_experiments.data.nyu.sample import make_nyu_sample, nyu_sample_path
from imex_experiments.data.nyu.split import (
    SPLITS,
    Split,
    frames_of_types,
    split_by_counts,
    split_by_scenes,
    split_officially,
)
from imex_experiments.data.tensor_data import TensorData
from imex_experiments.errors import DataError
from imex_experiments.facts import Facts

log = logging.getLogger(__name__)

DEPTHS = ("depths", "rawDepths")


class NyuData(TensorData):
    """The data module of NYU-Depth V2.

    Batches are images (B, 3, H, W) uint8 and depths (B, 1, H, W) float32, in metres; an
    invalid depth is 0.

    `path` is nyu_depth_v2_labeled.mat, or a small v5 file with `images` and `depths`. With
    `scene_types`, frames of these types alone are used. Frames are split by `counts`
    (train, val, test), by the official `splits_file`, or else by `proportions`. No scene is
    in two splits; `seed` decides on the split of each scene. `depth` is the name of the
    data set with the depths. `border` pixels are cropped from each side before the resize
    to `image_size`, (H, W). The converted frames are cached in `cache_dir`. With `verify`
    the MD5 must be that of the published file. Nothing is read before `setup`, which
    raises DataError.
    """

    in_channels = 3
    out_channels = 1

    def __init__(
        self,
        cache_dir: str,
        path: str,
        scene_types: Sequence[str] | None = None,
        counts: Sequence[int] | None = None,
        splits_file: str | None = None,
        proportions: Sequence[float] = (0.8, 0.1, 0.1),
        depth: str = "depths",
        image_size: Sequence[int] = (240, 320),
        border: int = 0,
        batch_size: int = 4,
        num_workers: int = 0,
        seed: int = 0,
        verify: bool = False,
    ) -> None:
        super().__init__(batch_size, num_workers)
        _require_sound(
            scene_types, counts, splits_file, proportions, depth, image_size, border
        )
        if counts is not None and batch_size > counts[0]:
            raise ValueError(
                f"batch_size {batch_size} is larger than the training split of {counts[0]}"
            )
        if seed < 0:
            raise ValueError(f"seed must be >= 0, got {seed}")
        self.cache_dir = Path(cache_dir).expanduser()
        self.path = Path(path).expanduser()
        self.scene_types = None if scene_types is None else list(scene_types)
        self.counts = None if counts is None else list(counts)
        self.splits_file = None
        if splits_file is not None:
            self.splits_file = Path(splits_file).expanduser()
        self.proportions = list(proportions)
        self.depth = depth
        self.image_size = (int(image_size[0]), int(image_size[1]))
        self.border = border
        self.seed = seed
        self.verify = verify
        self._converted: dict[str, Tensor] = {}

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of an image."""
        return self.in_channels, *self.image_size

    def prepare_data(self) -> None:
        """Convert the frames and cache them, in one process of each machine."""
        if not self.splits:
            self._converted = self._frames()

    def setup(self, stage: str | None = None) -> None:
        if self.splits:
            return
        found, self._converted = self._converted or self._frames(), {}
        self._log_masked(found["masked"])
        sizes = found["sizes"].tolist()
        if self.batch_size > sizes[0]:
            raise DataError(
                f"{self.path}: {sizes[0]} training images are fewer than "
                f"data.batch_size={self.batch_size}"
            )
        parts = zip(
            found["images"].split(sizes), found["depths"].split(sizes), strict=True
        )
        self.splits = {
            split: TensorDataset(*part)
            for split, part in zip(SPLITS, parts, strict=True)
        }

    def _frames(self) -> dict[str, Tensor]:
        """Return the converted frames, from the cache or of the file."""
        mat_version(self.path)
        if self.splits_file is not None:
            mat_version(self.splits_file)
        if self.verify:
            require_published(self.path)
        given = (self._key(), self._convert, self._layout(), _require_frames)
        return cached(self.cache_dir, "nyu", *given)

    def _key(self) -> dict[str, Any]:
        """Return all parameters on which the tensors depend, and the identity of the files."""
        return {
            "version": VERSION,
            "file": PUBLISHED_MD5 if self.verify else _identity(self.path),
            "scene_types": self.scene_types and sorted(self.scene_types),
            "counts": self.counts,
            "splits_file": self.splits_file and _identity(self.splits_file),
            "proportions": self.proportions,
            "depth": self.depth,
            "image_size": self.image_size,
            "border": self.border,
            "seed": self.seed,
        }

    def _layout(self) -> Layout:
        """Return types and sizes of the tensors of `_convert`."""
        return {
            "images": ("U8", None, 3, *self.image_size),
            "depths": ("F32", None, 1, *self.image_size),
            "frames": ("I64", None),
            "masked": ("I64", len(MASKED)),
            "sizes": ("I64", len(SPLITS)),
        }

    def _convert(self) -> dict[str, Tensor]:
        contents = read_contents(self.path, self.depth)
        split = self._split(contents)
        log.info(
            "%s: %s frames, %s",
            self.path,
            len(contents.scenes),
            ", ".join(f"{len(frames)} for {name}" for name, frames in split.items()),
        )
        frames = [frame for name in SPLITS for frame in split[name]]
        tensors = convert_frames(
            self.path, frames, self.depth, self.image_size, self.border
        )
        sizes = torch.tensor([len(split[name]) for name in SPLITS])
        return {**tensors, "sizes": sizes, "frames": torch.tensor(frames)}

    def _split(self, contents: NyuContents) -> Split:
        frames = frames_of_types(self.path, contents, self.scene_types)
        given = (self.path, contents, frames)
        if self.counts is not None:
            return split_by_counts(*given, self.counts, self.seed)
        if self.splits_file is not None:
            return split_officially(
                *given, self.splits_file, self.proportions, self.seed
            )
        return split_by_scenes(*given, self.proportions, self.seed)

    def _log_masked(self, masked: Tensor) -> None:
        """Log the numbers of masked depths; warn of kinds that a Kinect never writes."""
        counts = dict(zip(MASKED, masked.tolist(), strict=True))
        if not any(counts.values()):
            return
        odd = sum(counts.values()) > counts["zero"]
        log.log(
            logging.WARNING if odd else logging.INFO,
            "%s: masked depths: %s",
            self.path,
            ", ".join(f"{number:,} {kind}" for kind, number in counts.items()),
        )

    @property
    def facts(self) -> Facts:
        """Mean and deviation of colours and of valid depths in the training split."""
        images, depths = self.splits["train"].tensors
        colours = [images[:, channel] for channel in range(self.in_channels)]
        moments = [_mean_and_std(colour) for colour in colours]
        valid = depths[depths > 0]
        if len(valid) < 2:
            raise DataError(
                f"{self.path}: no valid depth in the {len(depths)} training images"
            )
        depth_mean, depth_std = _mean_and_std(valid)
        return {
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "mean": [mean for mean, _ in moments],
            "std": [max(std, 1.0) for _, std in moments],
            "dtype": "uint8",
            "depth_mean": depth_mean,
            "depth_std": depth_std,
        }


class NyuSampleData(NyuData):
    """The data module of a rendered file in the layout of NYU-Depth V2.

    `frames` frames are rendered from `seed`, two per scene; half of the scenes are kitchens.
    The file is kept in `cache_dir`. All other arguments are those of NyuData.
    """

    def __init__(
        self,
        cache_dir: str,
        frames: int = 24,
        scene_types: Sequence[str] | None = None,
        counts: Sequence[int] | None = None,
        proportions: Sequence[float] = (0.8, 0.1, 0.1),
        depth: str = "depths",
        image_size: Sequence[int] = (120, 160),
        border: int = WHITE_BORDER,
        batch_size: int = 4,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        path = nyu_sample_path(Path(cache_dir).expanduser(), frames, seed)
        super().__init__(
            cache_dir,
            str(path),
            scene_types,
            counts,
            proportions=proportions,
            depth=depth,
            image_size=image_size,
            border=border,
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
        )
        self.frames = frames

    def _frames(self) -> dict[str, Tensor]:
        if not self.path.exists():
            make_nyu_sample(self.path, self.frames, self.seed)
        return super()._frames()


def _require_frames(found: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless all splits have frames, and all frames depths in metres."""
    sizes = found["sizes"].tolist()
    for name in ("images", "depths", "frames"):
        if min(sizes) < 1 or sum(sizes) != len(found[name]):
            raise ValueError(f"splits of {sizes} for {len(found[name])} {name}")
    least, largest = map(float, found["depths"].aminmax())
    if not 0 <= least <= largest < math.inf:
        raise ValueError(f"depths are in {least} ... {largest} m")


def _mean_and_std(values: Tensor) -> tuple[float, float]:
    """Return mean and deviation in float64, computed in parts to save memory."""
    parts = values.flatten().split(2**22)
    mean = sum(float(part.double().sum()) for part in parts) / values.numel()
    squares = sum(float((part.double() - mean).square().sum()) for part in parts)
    return mean, math.sqrt(squares / max(1, values.numel() - 1))


def _identity(path: Path) -> list[Any]:
    """Return path, size and time of modification, which identify a file."""
    status = path.resolve().stat()
    return [os.fspath(path.resolve()), status.st_size, status.st_mtime_ns]


def _require_sound(
    scene_types: Sequence[str] | None,
    counts: Sequence[int] | None,
    splits_file: str | None,
    proportions: Sequence[float],
    depth: str,
    image_size: Sequence[int],
    border: int,
) -> None:
    """Raise ValueError with name and value for an argument that no file can satisfy."""
    if scene_types is not None and not scene_types:
        raise ValueError(
            "scene_types must name at least one type, got []; null for all"
        )
    if counts is not None and splits_file is not None:
        raise ValueError(
            f"counts {list(counts)} and splits_file {splits_file!r} exclude each other"
        )
    if counts is not None and (len(counts) != 3 or min(counts) < 1):
        raise ValueError(
            f"counts must be [train, val, test], each >= 1, got {list(counts)}"
        )
    finite = all(math.isfinite(share) for share in proportions)
    if len(proportions) != 3 or not finite or min(proportions) <= 0:
        raise ValueError(
            f"proportions must be [train, val, test], each > 0, got {list(proportions)}"
        )
    if depth not in DEPTHS:
        raise ValueError(f"depth must be one of {', '.join(DEPTHS)}, got {depth!r}")
    if len(image_size) != 2 or min(image_size) < 1:
        raise ValueError(
            f"image_size must be [height, width], each >= 1, got {list(image_size)}"
        )
    if not 0 <= 2 * border < min(FRAME):
        raise ValueError(f"border must be in 0 ... {min(FRAME) // 2 - 1}, got {border}")
