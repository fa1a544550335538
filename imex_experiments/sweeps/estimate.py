"""Estimate what one training of a sweep costs, in a process of its own."""

import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf

from imex_experiments.config.parts import build_parts, build_task, set_up
from imex_experiments.config.trainer import quiet_trainer
from imex_experiments.errors import StorageError
from imex_experiments.process.command import hush_lightning


@dataclass(frozen=True)
class Estimate:
    """One training by three of its steps: seconds in all, and the peak of memory, bytes."""

    seconds: float
    memory: int


CostOf = Callable[[DictConfig], Estimate]


@contextmanager
def estimating() -> Iterator[CostOf]:
    """Start the process, whose imports take seconds; yield a function to be called once.

    The function trains three steps of a configuration in that process and returns the
    estimate. It raises StorageError if the process dies. The device and its memory are
    free when the body ends.
    """
    context = multiprocessing.get_context("spawn")
    ours, its = context.Pipe()
    child = context.Process(
        target=_serve, args=(its,)
    )  # no daemon: it has data workers
    child.start()
    its.close()

    def cost(config: DictConfig) -> Estimate:
        bare = OmegaConf.masked_copy(config, [str(k) for k in config if k != "hydra"])
        ours.send(OmegaConf.to_container(bare))
        try:
            answer = ours.recv()
        except EOFError as error:
            raise StorageError(
                "the three steps that estimate the cost were killed; they may have run "
                "out of memory: try a smaller data.batch_size"
            ) from error
        if isinstance(answer, Exception):
            raise answer
        return answer

    try:
        yield cost
    finally:
        child.terminate()
        child.join()


def _serve(pipe: Connection) -> None:
    """Reply to one configuration with its estimate, or with the exception it raised."""
    plain = pipe.recv()
    try:
        pipe.send(train_three_steps(plain))
    except Exception as error:
        pipe.send(error)


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
