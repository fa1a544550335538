"""The pictures of one split: read, kept in memory, cut to windows, put into batches.

Shapes: images (C, H, W) uint8 or float32; labels (H, W) uint8, depths (1, H, W) float32.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate, get_worker_info

from imex_experiments.data.epoch_sampler import EpochSampler, FixedSampler
from imex_experiments.data.folder.augmentation import Transform, one_thread
from imex_experiments.data.folder.labels import LabelMap
from imex_experiments.data.folder.layout import SPLITS, Pair
from imex_experiments.data.folder.pictures import read_depth, read_image, read_labels
from imex_experiments.data.folder.sizes import Size, resized_image, resized_target
from imex_experiments.errors import DataError

Sample = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class DepthUnits:
    """The meaning of the values of depth files.

    A depth is `scale` x value in metres. It is unknown, and becomes 0, for the values
    `invalid`, for NaN and Inf, and outside of the open interval `range` in metres.
    """

    scale: float
    invalid: tuple[float, ...]
    range: tuple[float, float]

    def metres(self, path: Path) -> Tensor:
        """Return the depths (1, H, W) of a file."""
        values = torch.from_numpy(read_depth(path))
        metres = self.scale * values
        known = (metres > self.range[0]) & (metres < self.range[1])
        for value in self.invalid:
            known &= values != value
        return torch.where(known, metres, 0.0)[None]


@dataclass(frozen=True)
class Reader:
    """The way from two files to an image and its target, both resized if `size` is given."""

    meaning: LabelMap | DepthUnits
    size: Size | None

    def __call__(self, pair: Pair) -> Sample:
        """Read a pair. Raises DataError for a file that does not fit, or is not readable."""
        image = torch.from_numpy(read_image(pair.image))
        target = self._target(pair.target)
        if image.shape[-2:] != target.shape[-2:]:
            raise DataError(
                f"{pair.target}: {_by(target)} pixels, its image {pair.image.name} has "
                f"{_by(image)}; save both at one size"
            )
        if self.size is not None:
            with one_thread():
                image = resized_image(image, self.size)
                target = resized_target(target, self.size)
        return image, target

    def _target(self, path: Path) -> Tensor:
        if isinstance(self.meaning, DepthUnits):
            return self.meaning.metres(path)
        return torch.from_numpy(self.meaning(read_labels(path), path))


def _by(picture: Tensor) -> str:
    return " x ".join(map(str, picture.shape[-2:]))


class Memory:
    """Decoded pictures that were read before, of at most `most` bytes in all.

    A data worker is a copy of the process that made it, and so knows what was read there.
    What it adds is its own, so each of them may add its share of the bytes that are left;
    every split may have so many workers.
    """

    def __init__(self, most: int) -> None:
        self.most, self.used = most, 0
        self.kept: dict[Pair, Sample] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return an empty memory: a worker that is no fork reads for itself."""
        return {"most": self.most, "used": 0, "kept": {}}

    def get(self, pair: Pair, read: Callable[[Pair], Sample]) -> Sample:
        """Return the pictures of a pair, read anew unless they are kept."""
        if pair in self.kept:
            return self.kept[pair]
        sample = read(pair)
        size = sum(picture.numel() * picture.element_size() for picture in sample)
        worker = get_worker_info()
        readers = len(SPLITS) * worker.num_workers if worker else 1
        share = (self.most - self.used) // readers
        if size <= share:
            self.kept[pair] = sample
            self.used += size
        return sample


class Pictures(Dataset):
    """The images and targets of one split, whole, in the order of their names."""

    def __init__(self, pairs: Sequence[Pair], read: Reader, memory: Memory) -> None:
        self.pairs, self.read, self.memory = list(pairs), read, memory
        self.sizes: list[Size] = []

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        return self.memory.get(self.pairs[index], self.read)


class Views(Dataset):
    """The windows of training images, augmented; `views` of each image in an epoch.

    An index is (epoch, number), so that a worker needs to know nothing else.
    """

    def __init__(
        self, pictures: Pictures, transform: Transform, views: int, seed: int
    ) -> None:
        self.pictures, self.transform = pictures, transform
        self.views, self.seed = views, seed

    def __len__(self) -> int:
        return len(self.pictures) * self.views

    def __getitem__(self, index: tuple[int, int]) -> Sample:
        epoch, number = index
        image, target = self.pictures[number % len(self.pictures)]
        return self.transform(image, target, self.seed, epoch, number)


class EpochIndices(EpochSampler):
    """The order of an EpochSampler, as pairs of the epoch and an index."""

    def __iter__(self) -> Iterator[Any]:
        epoch = self.ordered_by()
        return ((epoch, index) for index in super().__iter__())


class FixedIndices(EpochIndices, FixedSampler):
    """The order and the views of epoch 0 in every epoch, for `trainer.overfit_batches`."""


class Batches(Dataset):
    """Whole images in batches of one size, in their order.

    A batch has at most `batch_size` images, and at most `pixels` pixels unless it is a
    single image.
    """

    def __init__(self, pictures: Pictures, batch_size: int, pixels: int) -> None:
        self.pictures = pictures
        self.batches: list[list[int]] = []
        for index, size in enumerate(pictures.sizes):
            last = self.batches[-1] if self.batches else []
            most = min(batch_size, max(1, pixels // (size[0] * size[1])))
            if last and pictures.sizes[last[0]] == size and len(last) < most:
                last.append(index)
            else:
                self.batches.append([index])

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> list[Tensor]:
        return default_collate([self.pictures[i] for i in self.batches[index]])


def only(batches: list[Any]) -> Any:
    """Return the single batch of a list."""
    (batch,) = batches
    return batch
