"""data=folder: pictures of one's own with labels or depths, in a folder."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from imex_experiments.data.epoch_sampler import EpochLoader, overfits
from imex_experiments.data.folder.augmentation import Augmentation, Transform
from imex_experiments.data.folder.labels import IGNORED, LabelMap, class_names
from imex_experiments.data.folder.layout import Division, find_splits
from imex_experiments.data.folder.sizes import Size, centred
from imex_experiments.data.folder.split import (
    Batches,
    DepthUnits,
    EpochIndices,
    FixedIndices,
    Memory,
    Pictures,
    Reader,
    Sample,
    Views,
    only,
)
from imex_experiments.data.folder.survey import Survey, survey
from imex_experiments.data.tensor_data import leave_signals_to_parent
from imex_experiments.errors import DataError
from imex_experiments.facts import DataModule, Facts

log = logging.getLogger(__name__)

GIGABYTE = 10**9
OF_WHOLE_IMAGES = ("ClassificationTask", "RegressionTask")
"""Tasks whose targets are no pictures."""

UNKNOWN_SIDE = 256
"""Sides of an image in checks that come before any file is read."""


class FolderData(DataModule):
    """The data module of a folder of images with a label or a depth for each pixel.

    Training batches are images (B, C, H, W), uint8 for 8 bits and float32 for more, and
    labels (B, H, W) uint8, IGNORED where nothing counts, or depths (B, 1, H, W) float32 in
    metres, 0 where unknown. Other splits have whole images, in batches of one size.

    `task` decides on labels or depths: a class whose name has "Depth" in it takes depths.
    `images`, `labels` and `depths` are patterns of paths below `root`, see
    `layout.find_splits`. `split` or `fold` and `folds` divide one folder by `seed`, which
    is not the seed of the run; see `layout.Division`. `groups` is `<file>.csv:<column>`.
    `classes`, `label_map`, `ignore_label` and `threshold` are those of `labels.LabelMap`,
    `depth_scale`, `invalid` and `depth_range` those of `split.DepthUnits`. `resize` is the
    size of all images, `crop` that of training windows, [height, width] or one number. Each
    image gives `views` windows in an epoch. `memory` gigabytes of decoded pictures are
    kept. `setup` reads all pictures once, unless it finds their survey in `cache_dir`, and
    raises DataError for whatever is wrong.
    """

    def __init__(
        self,
        root: str,
        task: str,
        cache_dir: str,
        images: str = "{split}/images",
        labels: str = "{split}/labels",
        depths: str = "{split}/depths",
        split: Sequence[float] | None = None,
        fold: int | None = None,
        folds: int | None = None,
        groups: str | None = None,
        seed: int = 0,
        classes: int | str | Sequence[Any] | None = None,
        label_map: Mapping[int, int] | None = None,
        ignore_label: int | Sequence[int] | None = None,
        threshold: float | None = None,
        depth_scale: float = 1.0,
        invalid: Sequence[float] = (0,),
        depth_range: Sequence[float] = (0.001, 10.0),
        resize: int | Sequence[int] | None = None,
        crop: int | Sequence[int] | None = None,
        augment: Augmentation | None = None,
        views: int = 1,
        batch_size: int = 4,
        num_workers: int = 0,
        memory: float = 1.0,
    ) -> None:
        super().__init__()
        for name, value, least in (
            *(("batch_size", batch_size, 1), ("num_workers", num_workers, 0)),
            *(("views", views, 1), ("memory", memory, 0), ("seed", seed, 0)),
        ):
            if value < least:
                raise ValueError(f"{name} must be >= {least}, got {value}")
        kind = task.rpartition(".")[2]
        if kind in OF_WHOLE_IMAGES:
            raise ValueError(
                f"task {kind} has one target per image, a folder has one per pixel; give "
                "task=segmentation or task=depth"
            )
        self.root = Path(root).expanduser()
        self.cache_dir = Path(cache_dir).expanduser()
        self.takes_depths = "Depth" in kind
        self.patterns = images, depths if self.takes_depths else labels
        self.division = Division(split, fold, folds, seed)
        if groups is not None and not self.division:
            raise ValueError(
                "groups are for data.split or data.folds; give one of both"
            )
        self.groups = groups
        self.resize, self.crop = _size("resize", resize), _size("crop", crop)
        self.classes: list[str] = []
        meaning: LabelMap | DepthUnits
        if self.takes_depths:
            meaning = _depth_units(depth_scale, invalid, depth_range)
        else:
            if classes is None:
                raise ValueError(
                    "classes: give their number, [names], or a file of them"
                )
            self.classes = class_names(classes)
            ignored = [] if ignore_label is None else ignore_label
            left_out = (ignored,) if isinstance(ignored, int) else tuple(ignored)
            meaning = LabelMap(len(self.classes), label_map, left_out, threshold)
        self.depth_range = depth_range
        self.reader = Reader(meaning, self.resize)
        self.augment = augment or Augmentation()
        self.views, self.batch_size, self.num_workers = views, batch_size, num_workers
        self.memory = Memory(int(memory * GIGABYTE))
        self.splits: dict[str, Pictures] = {}
        self.in_channels = 3  # unless the files say otherwise
        self.out_channels = 1 if self.takes_depths else len(self.classes)
        self.survey: Survey | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Return the shape (C, H, W) of a training image; before `setup` it is a guess."""
        side = UNKNOWN_SIDE
        first = self.splits["train"].sizes[0] if self.splits else (side, side)
        return self.in_channels, *(self.crop or self.resize or first)

    def prepare_data(self) -> None:
        """Make the survey, in one process of each machine; the others read it."""
        self.setup()

    def setup(self, stage: str | None = None) -> None:
        if self.splits:
            return
        found = find_splits(self.root, *self.patterns, self.division, self.groups)
        splits = {
            name: Pictures(pairs, self.reader, self.memory)
            for name, pairs in found.items()
        }
        known = survey(splits, self.cache_dir)
        for name, pictures in splits.items():
            pictures.sizes = known.sizes[name]
        self.survey, self.in_channels = known, len(known.channels)
        self._check_training(splits["train"], known)
        self.splits = splits
        numbers = ", ".join(f"{len(p)} for {name}" for name, p in splits.items())
        log.info("%s: %s", self.root, numbers)

    def _check_training(self, pictures: Pictures, known: Survey) -> None:
        """Raise DataError for training images that cannot be batched, or teach nothing."""
        number = len(pictures) * self.views
        if self.batch_size > number:
            raise DataError(
                f"{self.root}: {number} training images are fewer than "
                f"data.batch_size={self.batch_size}"
            )
        for pair, (height, width) in zip(pictures.pairs, pictures.sizes, strict=True):
            if self.crop and (height < self.crop[0] or width < self.crop[1]):
                raise DataError(
                    f"{pair.image}: {height} x {width} pixels, smaller than data.crop="
                    f"{list(self.crop)}; give a smaller crop, or data.resize"
                )
        if self.crop is None and self.batch_size > 1 and len(set(pictures.sizes)) > 1:
            other = next(s for s in pictures.sizes if s != pictures.sizes[0])
            raise DataError(
                f"{pictures.pairs[pictures.sizes.index(other)].image}: "
                f"{other[0]} x {other[1]} pixels, others have {pictures.sizes[0][0]} x "
                f"{pictures.sizes[0][1]}, and a batch has one size; give "
                "data.crop=[height,width], data.resize=[height,width] or "
                "data.batch_size=1"
            )
        if self.takes_depths:
            if known.depths.number < 2:
                raise DataError(
                    f"{self.root}: no valid depth in the {len(pictures)} training images; "
                    "check data.depth_scale and data.depth_range"
                )
            return
        present = known.labels[: len(self.classes)].nonzero().flatten().tolist()
        if len(present) < 2:
            only_one = [self.classes[k] for k in present] or ["none"]
            raise DataError(
                f"{self.root}: all training pixels are of one class, {only_one[0]!r}: there "
                "is nothing to tell apart; check the labels"
            )
        absent = [n for k, n in enumerate(self.classes) if k not in present]
        if absent:
            log.warning(
                "%s: no training pixel of %s", self.root, ", ".join(map(repr, absent))
            )

    @property
    def facts(self) -> Facts:
        """Return the statistics of the training pixels that count, and their classes."""
        known = self.survey
        assert known is not None, "facts are known after setup"
        least = 1.0 if known.eight_bits else 1e-6  # for images of one grey
        facts: Facts = {
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "mean": [moments.mean for moments in known.channels],
            "std": [max(moments.std, least) for moments in known.channels],
            "dtype": "uint8" if known.eight_bits else "float32",
        }
        if self.resize is not None:
            facts["resize"] = list(self.resize)
        if self.takes_depths:
            facts["depth_mean"] = known.depths.mean
            facts["depth_std"] = max(known.depths.std, 1e-3)
            facts["depth_range"] = list(self.depth_range)
            return facts
        counts = known.labels[: len(self.classes)].double()
        facts["classes"] = self.classes
        facts["class_frequency"] = (counts / counts.sum()).tolist()
        facts["ignore_label"] = IGNORED
        return facts

    def samples(self, split: str, number: int) -> tuple[Tensor, ...]:
        """Return the first samples of a split that have one size, not augmented.

        Training images are cut to the crop, in their middle.
        """
        pictures = self.splits[split]
        cut = self.crop if split == "train" else None
        size = cut or pictures.sizes[0]
        chosen: list[Sample] = []
        for index, found in enumerate(pictures.sizes):
            if len(chosen) == number:
                break
            if cut or found == size:
                chosen.append(pictures[index])
        images, targets = zip(*chosen, strict=True)
        return tuple(
            torch.stack([centred(picture, size) for picture in pictures_of])
            for pictures_of in (images, targets)
        )

    def train_dataloader(self) -> DataLoader:
        facts = self.facts
        transform = Transform(self.augment, self.crop, facts["mean"], facts["std"])
        seed = torch.initial_seed()
        views = Views(self.splits["train"], transform, self.views, seed)
        sampler = FixedIndices if overfits(self.trainer) else EpochIndices
        order = sampler(len(views), seed)
        odd = len(order) % self.batch_size == 1 and self.batch_size > 1
        if odd:
            log.warning(
                "the last batch would hold one image; it is dropped (batch norm)"
            )
        return EpochLoader(
            views,
            self.batch_size,
            sampler=order,
            drop_last=odd,
            **self._options(),
        )

    def val_dataloader(self) -> DataLoader:
        return self._evaluation("val")

    def test_dataloader(self) -> DataLoader:
        return self._evaluation("test")

    def _evaluation(self, split: str) -> DataLoader:
        """Return a loader of whole images, in batches no larger than those of training."""
        _, height, width = self.image_shape
        pixels = self.batch_size * height * width
        batches: Dataset = Batches(self.splits[split], self.batch_size, pixels)
        return DataLoader(batches, collate_fn=only, **self._options())

    def _options(self) -> dict[str, Any]:
        """Return the options of all loaders, with generators apart from torch's own."""
        return {
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "worker_init_fn": leave_signals_to_parent,
            "generator": torch.Generator().manual_seed(0),
        }


def _size(name: str, value: int | Sequence[int] | None) -> Size | None:
    """Return a size given as [height, width] or as one number."""
    if value is None:
        return None
    sides = (value, value) if isinstance(value, int) else tuple(value)
    if len(sides) != 2 or min(sides) < 1:
        raise ValueError(f"{name} must be [height, width], each >= 1, got {value}")
    return int(sides[0]), int(sides[1])


def _depth_units(
    scale: float, invalid: Sequence[float], depth_range: Sequence[float]
) -> DepthUnits:
    if not scale > 0:
        raise ValueError(f"depth_scale must be > 0, in metres per unit, got {scale}")
    if len(depth_range) != 2 or not 0 < depth_range[0] < depth_range[1]:
        raise ValueError(
            f"depth_range must be [nearest, farthest] in metres, got {list(depth_range)}"
        )
    return DepthUnits(scale, tuple(invalid), (depth_range[0], depth_range[1]))
