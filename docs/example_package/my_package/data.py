"""A data module: images of floats, each made when it is needed, none kept in memory."""

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from imex_experiments.data import DataModule, EpochLoader, EpochSampler, Facts

CLASSES = ["background", "disc", "ring"]


class Blobs(Dataset):
    """Images (1, S, S) float32 of a disc or a ring in noise, and labels (S, S) uint8."""

    def __init__(self, number: int, size: int, first: int) -> None:
        self.number, self.size, self.first = number, size, first

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(self.first + index)
        ring = int(torch.randint(2, (), generator=generator))
        centre = self.size * (0.3 + 0.4 * torch.rand(2, generator=generator))
        y, x = torch.meshgrid(2 * [torch.arange(self.size)], indexing="ij")
        distance = (torch.stack([y, x], 2) - centre).norm(dim=2) / self.size
        object_ = (distance < 0.25) & ((distance > 0.12) | (ring == 0))
        noise = torch.randn(self.size, self.size, generator=generator)
        return (object_ + 0.3 * noise)[None], (object_ * (1 + ring)).to(torch.uint8)


class BlobsData(DataModule):
    """The data module of discs and rings: inputs of floats, labels of three classes."""

    in_channels, out_channels = 1, len(CLASSES)

    def __init__(
        self,
        train: int = 256,
        val: int = 32,
        test: int = 32,
        image_size: int = 32,
        batch_size: int = 16,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        if batch_size > train:
            raise ValueError(f"batch_size {batch_size} is larger than train, {train}")
        self.numbers = {"train": train, "val": val, "test": test}
        self.image_size = image_size
        self.batch_size, self.num_workers = batch_size, num_workers
        self.splits: dict[str, Dataset] = {}

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.in_channels, self.image_size, self.image_size

    def setup(self, stage: str | None = None) -> None:
        for index, (split, number) in enumerate(self.numbers.items()):
            self.splits[split] = Blobs(number, self.image_size, index * 1_000_000)

    @property
    def facts(self) -> Facts:
        images, labels = self.samples("train", 64)
        share = labels.long().flatten().bincount(minlength=3) / labels.numel()
        return {
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "mean": [float(images.mean())],
            "std": [float(images.std())],
            "dtype": "float32",
            "classes": CLASSES,
            "class_frequency": share.tolist(),
        }

    def samples(self, split: str, number: int) -> tuple[Tensor, ...]:
        dataset = self.splits[split]
        found = [dataset[i] for i in range(min(number, self.numbers[split]))]
        images, labels = zip(*found, strict=True)
        return torch.stack(images), torch.stack(labels)

    def train_dataloader(self) -> DataLoader:
        # These two resume in the middle of an epoch; a plain DataLoader works as well.
        order = EpochSampler(self.numbers["train"], seed=torch.initial_seed())
        return EpochLoader(sampler=order, **self._options("train"))

    def val_dataloader(self) -> DataLoader:
        return DataLoader(**self._options("val"))

    def test_dataloader(self) -> DataLoader:
        return DataLoader(**self._options("test"))

    def _options(self, split: str) -> dict:
        return {
            "dataset": self.splits[split],
            "batch_size": self.batch_size,
            "num_workers": self.num_workers,
            "generator": torch.Generator().manual_seed(0),
        }
