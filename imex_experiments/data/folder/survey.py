"""Read all pictures once: their sizes, statistics of the training images, and mistakes.

The result is cached, because large sets take minutes.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from imex_experiments.data.cache import Layout, cached
from imex_experiments.data.folder.labels import IGNORED
from imex_experiments.data.folder.sizes import Size
from imex_experiments.data.folder.split import Pictures, Sample
from imex_experiments.data.folder.statistics import Moments
from imex_experiments.errors import DataError

VERSION = 1
"""Part of the name in the cache. Raise it when the same files give another survey."""


@dataclass(frozen=True)
class Survey:
    """The findings in all pictures.

    `sizes` are those of the images of each split. The others are statistics of the
    training images: moments of each channel over the pixels that count, moments of the
    known depths in metres, and the number of pixels of each label.
    """

    sizes: Mapping[str, list[Size]]
    channels: list[Moments]
    depths: Moments
    labels: Tensor
    eight_bits: bool


LAYOUT: Layout = {
    "sizes": ("I64", None, 2),
    "channels": ("F64", None, 3),
    "depths": ("F64", 1, 3),
    "labels": ("I64", IGNORED + 1),
    "eight_bits": ("U8", 1),
}
"""Types and sizes of the tensors in the cache; moments are number, mean and squares."""


def survey(splits: Mapping[str, Pictures], cache_dir: Path) -> Survey:
    """Return the findings, from the cache if no file and no way of reading has changed.

    Raises DataError for the first picture that is unreadable, or unlike the others.
    """
    found = cached(cache_dir, "folder", _key(splits), lambda: _read(splits), LAYOUT)
    sizes = [(int(height), int(width)) for height, width in found["sizes"]]
    of: dict[str, list[Size]] = {}
    for name, pictures in splits.items():
        of[name], sizes = sizes[: len(pictures)], sizes[len(pictures) :]
    return Survey(
        of,
        [_moments(row) for row in found["channels"]],
        _moments(found["depths"][0]),
        found["labels"],
        bool(found["eight_bits"]),
    )


def _moments(row: Tensor) -> Moments:
    number, mean, squares = row.tolist()
    return Moments(int(number), mean, squares)


def _key(splits: Mapping[str, Pictures]) -> dict[str, Any]:
    """Return the identity of all files, and the way in which they are read."""
    read = splits["train"].read
    files = {
        name: [
            [str(path.absolute()), status.st_size, status.st_mtime_ns]
            for pair in pictures.pairs
            for path in (pair.image, pair.target)
            for status in [path.lstat()]
        ]
        for name, pictures in splits.items()
    }
    return {"version": VERSION, "files": files, "read": asdict(read)}


def _read(splits: Mapping[str, Pictures]) -> dict[str, Tensor]:
    """Read all pictures; return the tensors of LAYOUT."""
    train = splits["train"]
    first, _ = train[0]
    channels = [Moments() for _ in first]
    depths, labels = Moments(), torch.zeros(IGNORED + 1, dtype=torch.int64)
    sizes: list[Size] = []
    for pictures in splits.values():
        for index, pair in enumerate(pictures.pairs):
            image, target = pictures[index]
            _refuse_unlike(image, pair.image, first, train.pairs[0].image)
            sizes.append((int(image.shape[1]), int(image.shape[2])))
            if pictures is train:
                _count((image, target), channels, depths, labels)
    return {
        "sizes": torch.tensor(sizes),
        "channels": torch.stack([_row(moments) for moments in channels]),
        "depths": _row(depths)[None],
        "labels": labels,
        "eight_bits": torch.tensor([first.dtype == torch.uint8]).byte(),
    }


def _row(moments: Moments) -> Tensor:
    numbers = [moments.number, moments.mean, moments.squares]
    return torch.tensor(numbers, dtype=torch.float64)


def _refuse_unlike(image: Tensor, path: Path, first: Tensor, of: Path) -> None:
    """Raise DataError for an image with other channels or bits than the first one."""
    if len(image) != len(first):
        raise DataError(
            f"{path}: {len(image)} channels, but {of} has {len(first)}; convert all images "
            "to grey, or all to RGB"
        )
    if image.dtype != first.dtype:
        raise DataError(
            f"{path}: {_bits(image)}, but {of} has {_bits(first)}; convert all images to "
            "one of both"
        )


def _bits(image: Tensor) -> str:
    return "8 bits" if image.dtype == torch.uint8 else "more than 8 bits"


def _count(
    sample: Sample, channels: list[Moments], depths: Moments, labels: Tensor
) -> None:
    """Add a training image and its target to the statistics."""
    image, target = sample
    counted = torch.ones(image.shape[-2:], dtype=torch.bool)
    if target.is_floating_point():
        depths.add(target[target > 0].numpy())
    else:
        labels += target.flatten().bincount(minlength=IGNORED + 1)
        counted = target != IGNORED
    for moments, plane in zip(channels, image, strict=True):
        moments.add(plane[counted].numpy())
