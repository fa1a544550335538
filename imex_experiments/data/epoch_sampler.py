"""The order of the training images."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class EpochSampler(Sampler[int]):
    """All indices of [0, size), in an order that `seed` and epoch alone decide.

    Nothing is carried from epoch to epoch, so a resumed run sees the order that the
    uninterrupted one would have seen. Lightning calls `set_epoch` before each epoch.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        yield from rng.permutation(self.size).tolist()
