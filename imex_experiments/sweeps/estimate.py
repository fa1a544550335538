"""Estimate what one training of a sweep costs, in a process of its own."""

import sys
import tempfile
import time
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf

from imex_experiments.config.parts import build_parts, build_task, set_up
from imex_experiments.config.trainer import quiet_trainer
from imex_experiments.errors import StorageError
from imex_experiments.process.command import hush_lightning
from imex_experiments.process.forks import apart


@dataclass(frozen=True)
class Estimate:
    """One training by three of its steps: seconds in all, and the peak of memory, bytes."""

    seconds: float
    memory: int


def estimate(config: DictConfig) -> Estimate:
    """Train three steps of a configuration in a process of its own; return the estimate.

    The device and its memory are free then. StorageError if the process dies.
    """
    bare = OmegaConf.masked_copy(config, [str(k) for k in config if k != "hydra"])
    try:
        return apart(train_three_steps, OmegaConf.to_container(bare))
    except ChildProcessError as error:
        raise StorageError(
            "the three steps that estimate the cost were killed; they may have run "
            "out of memory: try a smaller data.batch_size"
        ) from error


def train_three_steps(plain: dict[str, Any]) -> Estimate:
    """Train three steps of a configuration on as little data as it takes."""
    hush_lightning()
    cfg = OmegaConf.create(plain)
    parts = build_parts(cfg)
    set_up(cfg, parts)
    task = build_task(cfg, parts)
    clock = _StepClock()
    with tempfile.TemporaryDirectory() as folder:
        cfg.run_dir = folder
        trainer = quiet_trainer(
            cfg.trainer,
            callbacks=[clock],
            max_epochs=1,
            limit_train_batches=3,
            limit_val_batches=0,
            overfit_batches=0,
            fast_dev_run=False,
        )
        trainer.fit(task, parts.data)
    steps = len(parts.data.train_dataloader()) * cfg.trainer.max_epochs
    if trainer.strategy.root_device.type == "cuda":
        return Estimate(steps * clock.fastest, torch.cuda.max_memory_reserved())
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return Estimate(steps * clock.fastest, peak)


class _StepClock(pl.Callback):
    """Seconds of the fastest training step, the first (warm-up) among them."""

    fastest = float("inf")

    def on_train_batch_start(self, *_: Any) -> None:
        self.start = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.fastest = min(self.fastest, time.perf_counter() - self.start)
