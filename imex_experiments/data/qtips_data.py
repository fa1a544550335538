"""data=qtips: Q-tips, generated or read from a folder in the published layout."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from imex_experiments.data.cache import cached
from imex_experiments.data.folder.published import read_image_folder
from imex_experiments.data.qtips import (
    CLASSES,
    SPLITS,
    QtipsRecipe,
    cache_key,
    make_qtips,
    split_seed,
)
from imex_experiments.data.tensor_data import TensorData
from imex_experiments.errors import DataError
from imex_experiments.facts import Facts
from imex_experiments.installed import command_line

log = logging.getLogger(__name__)


class QtipsData(TensorData):
    """The data module of Q-tips.

    Batches are images (B, 1, S, S) uint8 and labels (B, S, S) uint8.

    `train`, `val` and `test` are numbers of images. Each split has its own seed, derived
    from `seed`, which is not the seed of the run: all runs have the same images. With
    `root`, images are read from `<root>/<split>/`, each with `images/`, `labels/` and
    `filenames.txt`. A root that holds these itself is split at random in the proportion of
    the three numbers. Nothing is read before `setup`.
    """

    in_channels = 1
    out_channels = len(CLASSES)

    def __init__(
        self,
        cache_dir: str,
        train: int = 1024,
        val: int = 64,
        test: int = 256,
        batch_size: int = 16,
        num_workers: int = 0,
        seed: int = 0,
        image_size: int = 64,
        objects: int = 1,
        centred: bool = True,
        lengths: Sequence[int] = (32, 60),
        widths: Sequence[int] = (4, 8),
        root: str | None = None,
        touching: bool = False,
        on_device: bool = False,
    ) -> None:
        super().__init__(batch_size, num_workers, on_device)
        self.recipe = QtipsRecipe(
            image_size, objects, centred, lengths, widths, touching
        )
        self.sizes = dict(zip(SPLITS, (train, val, test), strict=True))
        for name, value in self.sizes.items():
            if value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}")
        if root is None and batch_size > train:
            raise ValueError(
                f"batch_size {batch_size} is larger than the training split of {train}"
            )
        self.cache_dir = Path(cache_dir).expanduser()
        self.root = None if root is None else Path(root).expanduser()
        self.seed = seed
        self._generated: dict[str, dict[str, Tensor]] = {}

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of an image; before `setup`, the one of the recipe."""
        if self.splits:
            _, channels, height, width = self.splits["train"].tensors[0].shape
            return channels, height, width
        return self.in_channels, self.recipe.image_size, self.recipe.image_size

    def prepare_data(self) -> None:
        """Generate the images and cache them, in one process of each machine."""
        if self.root is None and not self.splits:
            self._generated = self._generate()

    def setup(self, stage: str | None = None) -> None:
        if self.splits:
            return
        found = self._generated or (
            self._generate() if self.root is None else self._read()
        )
        self._generated = {}
        for split, data in found.items():
            self.splits[split] = TensorDataset(data["images"], data["labels"])
        if self.batch_size > len(self.splits["train"]):
            raise DataError(
                f"{self.root}: {len(self.splits['train'])} training images are fewer than "
                f"data.batch_size={self.batch_size}"
            )
        found = self.splits["train"].tensors[1].unique()
        if len(found) == 1:  # its weight in the loss would be 0
            raise DataError(
                f"{self.root or 'data'}: all training pixels are of one class, "
                f"{CLASSES[found]!r}: there is nothing to tell apart; check the labels"
            )

    def _generate(self) -> dict[str, dict[str, Tensor]]:
        made, side = {}, self.recipe.image_size
        for split in SPLITS:
            number, seed = self.sizes[split], split_seed(self.seed, split)
            made[split] = cached(
                self.cache_dir,
                f"qtips-{split}",
                cache_key(number, self.recipe, seed),
                partial(make_qtips, number, self.recipe, seed),
                {
                    "images": ("U8", number, 1, side, side),
                    "labels": ("U8", number, side, side),
                },
                _require_classes,
            )
        return made

    def _read(self) -> dict[str, dict[str, Tensor]]:
        assert self.root is not None
        if (self.root / "images").is_dir():
            return self._split(read_image_folder(self.root, self.out_channels))
        if not self.root.is_dir():
            raise DataError(
                f"{self.root}: no such folder; write one with "
                f"{command_line('make_qtips')}, or leave data.root out to generate the data"
            )
        if not (self.root / "train").is_dir():
            raise DataError(
                f"{self.root}: neither images/ nor train/ in it; expected images/, labels/ "
                "and filenames.txt, here or in train/ and val/"
            )
        found = {
            split: read_image_folder(self.root / split, self.out_channels)
            for split in SPLITS
            if split != "test" or (self.root / split).is_dir()
        }
        if "test" not in found:
            log.warning("%s has no test/ folder: no test metrics", self.root)
        return found

    def _split(self, data: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        number, total = len(data["images"]), sum(self.sizes.values())
        counts = {split: number * self.sizes[split] // total for split in SPLITS}
        counts["train"] = number - counts["val"] - counts["test"]
        if min(counts.values()) < 1:
            raise DataError(
                f"{self.root}: {number} images are too few to split: {counts}"
            )
        order = torch.randperm(
            number, generator=torch.Generator().manual_seed(self.seed)
        )
        parts = dict(zip(SPLITS, order.split(list(counts.values())), strict=True))
        return {
            split: {name: tensor[part] for name, tensor in data.items()}
            for split, part in parts.items()
        }

    @property
    def facts(self) -> Facts:
        """Mean and deviation of the training images, classes and their frequency."""
        images, labels = self.splits["train"].tensors
        grey = images.double()
        counts = labels.flatten().bincount(minlength=self.out_channels)
        return {
            "classes": list(CLASSES),
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "mean": grey.mean((0, 2, 3)).tolist(),
            "std": grey.std((0, 2, 3)).clamp_min(1.0).tolist(),
            "dtype": "uint8",
            "class_frequency": (counts / counts.sum()).tolist(),
        }


def _require_classes(found: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless all labels are classes."""
    if int(found["labels"].max()) >= len(CLASSES):
        raise ValueError(f"labels are in 0 ... {int(found['labels'].max())}")
