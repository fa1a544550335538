"""Splits that fit into memory, and the batches of them."""

import logging
import signal
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from imex_experiments.data.epoch_sampler import EpochLoader, EpochSampler

log = logging.getLogger(__name__)


class TensorData(pl.LightningDataModule):
    """`splits` by name, filled by `setup`, and a loader for each.

    Training images come in an order that the seed of the run (torch's) and the epoch decide;
    a last batch of a single image is dropped with a warning, because batch norm cannot use
    it.
    """

    def __init__(self, batch_size: int, num_workers: int) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size must be >= 1, got {batch_size}")
        if num_workers < 0:
            raise ValueError(f"num_workers must be >= 0, got {num_workers}")
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.splits: dict[str, TensorDataset] = {}

    def samples(self, split: str, number: int) -> tuple[Tensor, ...]:
        """The first samples of a split, always the same."""
        return self.splits[split][:number]

    def train_dataloader(self) -> DataLoader:
        images = len(self.splits["train"])
        odd = images % self.batch_size == 1
        if odd:
            log.warning(
                "the last batch would hold one image; it is dropped (batch norm)"
            )
        order = EpochSampler(images, seed=torch.initial_seed())
        return EpochLoader(
            self.splits["train"], sampler=order, drop_last=odd, **self._options()
        )

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.splits["val"], **self._options())

    def test_dataloader(self) -> DataLoader:
        return DataLoader(self.splits["test"], **self._options())

    def _options(self) -> dict[str, Any]:
        """What all loaders share. Their generators leave torch's random numbers alone."""
        return {
            "batch_size": self.batch_size,
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "worker_init_fn": leave_ctrl_c_to_parent,
            "generator": torch.Generator().manual_seed(0),
        }


def leave_ctrl_c_to_parent(worker: int) -> None:
    """A terminal sends it to all processes, and the parent needs its workers to the end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
