"""Load batches from splits that fit into memory."""

import logging
import os
import signal
import sys
import threading
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from imex_experiments.data.augmentation import FlipsAndCrops
from imex_experiments.data.epoch_sampler import (
    EpochLoader,
    EpochSampler,
    FixedSampler,
    overfits,
)
from imex_experiments.facts import DataModule

log = logging.getLogger(__name__)


class TensorData(DataModule):
    """A data module with `splits` by name, which `setup` fills, and a loader for each.

    What `prepare_data` caches, `setup` reads; where it was not called, `setup` caches it.
    The order of training images depends on the seed of the run (torch's) and the epoch. A
    last batch of a single image is dropped with a warning, because batch norm cannot use
    it. With `on_device` the splits are kept on the training device, and batches are taken
    there in the same order. `augmentation` changes the images of the training loop, on the
    device; `samples` and other loaders return the original images.
    """

    def __init__(
        self,
        batch_size: int,
        num_workers: int,
        on_device: bool = False,
        augmentation: FlipsAndCrops | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size must be >= 1, got {batch_size}")
        if num_workers < 0:
            raise ValueError(f"num_workers must be >= 0, got {num_workers}")
        if on_device and num_workers > 0:
            raise ValueError(
                f"on_device=true needs num_workers=0, got {num_workers}: workers are "
                "other processes"
            )
        self.batch_size = batch_size
        self.on_device = on_device
        self.num_workers = num_workers
        self.augmentation = augmentation or None
        self.splits: dict[str, TensorDataset] = {}
        self._resident: dict[str, ResidentSplit] = {}

    def samples(self, split: str, number: int) -> tuple[Tensor, ...]:
        """Return the first samples of a split, without augmentation."""
        return self.splits[split][:number]

    def train_dataloader(self) -> DataLoader:
        self._seed = torch.initial_seed()
        sampler = FixedSampler if overfits(self.trainer) else EpochSampler
        order = sampler(len(self.splits["train"]), seed=self._seed)
        odd = len(order) % self.batch_size == 1
        if odd:
            log.warning(
                "the last batch would hold one image; it is dropped (batch norm)"
            )
        return EpochLoader(sampler=order, drop_last=odd, **self._options("train"))

    def val_dataloader(self) -> DataLoader:
        return DataLoader(**self._options("val"))

    def test_dataloader(self) -> DataLoader:
        return DataLoader(**self._options("test"))

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Augment a batch of the training loop; return any other batch unchanged."""
        if (
            self.augmentation is None
            or self.trainer is None
            or not self.trainer.training
        ):
            return batch
        images, *targets, numbers = batch
        of = len(self.splits["train"])
        epoch = 0 if overfits(self.trainer) else self.trainer.current_epoch
        return [self.augmentation(images, numbers, of, self._seed, epoch), *targets]

    def _with_numbers(self, split: str) -> TensorDataset:
        """Return a split; for the augmentation also the index of each image."""
        dataset = self.splits[split]
        if split != "train" or self.augmentation is None:
            return dataset
        return TensorDataset(*dataset.tensors, torch.arange(len(dataset)))

    def _options(self, split: str) -> dict[str, Any]:
        """Return the options of all loaders, with generators apart from torch's own."""
        dataset: Dataset = self._with_numbers(split)
        if self.on_device:
            if split not in self._resident:
                device = self.trainer.strategy.root_device if self.trainer else "cpu"
                self._resident[split] = ResidentSplit(self._with_numbers(split), device)
            dataset = self._resident[split]
        return {
            "dataset": dataset,
            "collate_fn": _as_drawn if self.on_device else None,
            "batch_size": self.batch_size,
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "worker_init_fn": leave_signals_to_parent,
            "generator": torch.Generator().manual_seed(0),
        }


class ResidentSplit(Dataset):
    """A split on a device, from which `DataLoader` fetches whole batches."""

    def __init__(self, split: TensorDataset, device: torch.device | str) -> None:
        self.tensors = [tensor.to(device) for tensor in split.tensors]

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitems__(self, indices: list[int]) -> list[Tensor]:
        chosen = torch.tensor(indices)
        return [t[chosen.to(t.device, non_blocking=True)] for t in self.tensors]


def _as_drawn(batch: list[Tensor]) -> list[Tensor]:
    return batch


def leave_signals_to_parent(worker: int) -> None:
    """Ignore Ctrl-C in a worker, and a SIGTERM of any process but its parent.

    A terminal sends the one to all processes, SLURM the other. The parent needs its workers
    until the run has been saved; then it ends them. No system but Linux says who sent one.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_end_for_parent, daemon=True).start()


def _end_for_parent() -> None:
    """Wait for a SIGTERM of the parent, and end this process."""
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != os.getppid():
        pass
    os._exit(0)
