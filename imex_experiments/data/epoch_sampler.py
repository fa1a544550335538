"""Order the training images of each epoch, and resume in the middle of an epoch."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import distributed
from torch.utils.data import DataLoader, DistributedSampler, SequentialSampler


class EpochSampler(DistributedSampler):
    """A permutation of the indices of [0, size), which depends on `seed` and epoch alone.

    A resumed run therefore has the order of an uninterrupted one. Lightning calls
    `set_epoch` before each epoch. The first `start` indices are left out, once.

    Each of n processes of a training takes every n-th index, so that n batches of b images
    are one batch of n b images. Where n does not divide the size, the first indices are
    repeated at the end: all processes have as many. It is a DistributedSampler, because
    Lightning replaces any other by one that shuffles again and cannot start within an epoch.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.seed = seed
        self.epoch = 0
        self.start = 0

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.epoch, self.start = epoch, 0

    def ordered_by(self) -> int:
        """Return the epoch whose permutation is drawn."""
        return self.epoch

    def __len__(self) -> int:
        _, processes = _place()
        return -(-self.size // processes)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.ordered_by()])
        start, self.start = self.start, 0
        rank, processes = _place()
        order = np.resize(rng.permutation(self.size), len(self) * processes)
        yield from order[rank::processes][start:].tolist()


def _place() -> tuple[int, int]:
    """Return the number of this process of a training, and how many there are."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


class FixedSampler(EpochSampler, SequentialSampler):
    """The permutation of epoch 0 in every epoch, for `trainer.overfit_batches`.

    Lightning replaces the sampler of a training that overfits, unless it is a
    SequentialSampler.
    """

    def ordered_by(self) -> int:
        return 0


def overfits(trainer: Any) -> bool:
    """Return True for a trainer that repeats its first batches."""
    return trainer is not None and trainer.overfit_batches > 0


class EpochLoader(DataLoader):
    """A loader of batches in the order of an EpochSampler, with a position to restore.

    Lightning saves the position in checkpoints, through `state_dict`.
    The sampler is read at the first batch, when the epoch is known. Otherwise workers that
    fetch ahead would begin with images of epoch 0.
    """

    given = 0  # batches of this epoch

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        self.given = getattr(self.sampler, "start", 0) // (self.batch_size or 1)
        for batch in super().__iter__():
            self.given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        sampler: Any = self.sampler
        return {"epoch": sampler.epoch, "batches": self.given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        sampler: Any = self.sampler
        sampler.epoch = state["epoch"]
        sampler.start = state["batches"] * (self.batch_size or 1)
