"""data=function1d and data=spirals: small problems whose inputs are points.

Shapes: inputs (N, C, 1, 1) float32, images of one pixel; targets (N, 1, 1, 1) float32 or
labels (N,) uint8.
"""

import math
from abc import abstractmethod

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from imex_experiments.data.tensor_data import TensorData
from imex_experiments.facts import Facts

TEST_POINTS = 500


def wave(x: Tensor) -> Tensor:
    """Return sin(5 pi (x - 1/2)) exp(-(x - 1/2)^2)."""
    shifted = x - 0.5
    return torch.sin(5 * math.pi * shifted) * torch.exp(-shifted.square())


def spiral(position: Tensor, arm: int, turns: float, gap: float) -> Tensor:
    """Return points (N, 2) at positions in [0, 1] of arm 0 or 1: radius position + gap arm."""
    angle, radius = 2 * math.pi * turns * position, position + gap * arm
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)


class ToyData(TensorData):
    """A data set of generated points; `facts` hold the training points for figures."""

    in_channels: int
    out_channels: int
    low: float
    high: float
    """Range of each input in figures."""

    @abstractmethod
    def make(self) -> dict[str, TensorDataset]:
        """Generate the splits by name."""

    def __init__(self, batch_size: int, num_workers: int, train: int) -> None:
        super().__init__(batch_size, num_workers)
        if batch_size > train:
            raise ValueError(
                f"batch_size {batch_size} is larger than the training split of {train}"
            )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape (C, 1, 1) of an input."""
        return self.in_channels, 1, 1

    def setup(self, stage: str | None = None) -> None:
        self.splits = self.splits or self.make()

    @property
    def facts(self) -> Facts:
        """Channels, identity normalisation, and the training points as lists."""
        inputs, targets = self.splits["train"].tensors
        return {
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "mean": [0.0] * self.in_channels,
            "std": [1.0] * self.in_channels,
            "dtype": "float32",
            "range": [self.low, self.high],
            "inputs": inputs.flatten(1).tolist(),
            "targets": targets.flatten().tolist(),
        }


class Function1dData(ToyData):
    """The data module of a function of one variable: x in [-1, 1] and `wave(x)`.

    There are `train` random points, `val` equally spaced points, and 500 test points at the
    midpoints of an equidistant grid.
    Source: Reshniak and Webster, Example 1.
    """

    in_channels = out_channels = 1
    low, high = -1.0, 1.0

    def __init__(
        self,
        train: int = 100,
        val: int = 200,
        batch_size: int = 20,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, train)
        if val < 2:
            raise ValueError(f"val must be >= 2, got {val}")
        self.sizes = train, val
        self.seed = seed

    def make(self) -> dict[str, TensorDataset]:
        train, val = self.sizes
        generator = torch.Generator().manual_seed(self.seed)
        between = (torch.arange(TEST_POINTS) + 0.5) / TEST_POINTS
        points = {
            "train": 2 * torch.rand(train, generator=generator) - 1,
            "val": torch.linspace(-1, 1, val),
            "test": 2 * between - 1,
        }
        return {
            split: TensorDataset(x.view(-1, 1, 1, 1), wave(x).view(-1, 1, 1, 1))
            for split, x in points.items()
        }


class SpiralsData(ToyData):
    """The data module of two spirals: points in the plane, labelled by their spiral.

    Each arm has `points` positions, which belong to the training and the validation split
    in turns. The test split has 500 positions per arm, at the midpoints of an equidistant
    grid. Source: Reshniak and Webster, Example 2.
    """

    in_channels, out_channels = 2, 2
    low, high = -1.5, 1.5
    classes = ("inner", "outer")

    def __init__(
        self,
        points: int = 100,
        turns: float = 2.0,
        gap: float = 0.2,
        batch_size: int = 20,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, 2 * (points // 2))
        self.points, self.turns, self.gap = points, turns, gap

    def make(self) -> dict[str, TensorDataset]:
        positions = torch.linspace(0, 1, self.points)
        between = (torch.arange(TEST_POINTS) + 0.5) / TEST_POINTS
        parts = {"train": positions[1::2], "val": positions[::2], "test": between}
        return {split: self._arms(position) for split, position in parts.items()}

    def _arms(self, position: Tensor) -> TensorDataset:
        arms = [spiral(position, arm, self.turns, self.gap) for arm in (0, 1)]
        labels = torch.arange(2, dtype=torch.uint8).repeat_interleave(len(position))
        return TensorDataset(torch.cat(arms)[:, :, None, None], labels)

    @property
    def facts(self) -> Facts:
        return {**super().facts, "classes": list(self.classes)}
