"""The numbers of a trained task on the splits of its data."""

from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig

from imex_experiments.config.trainer import quiet_trainer
from imex_experiments.tasks import Task


def alone_after_fit(trainer: pl.Trainer) -> bool:
    """Leave the others; False in their processes, which have nothing left to do.

    The kept checkpoint is evaluated by one process, so that no image counts twice to fill
    the last batch of another device.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        trainer.strategy.barrier()
        torch.distributed.destroy_process_group()
    return trainer.is_global_zero


def evaluate(
    task: Task, data: Any, trainer: DictConfig, test: bool = True
) -> dict[str, float]:
    """All `val/*` and `test/*` metrics of the task as it is, by name.

    No curve of the run gets another point. A data set without a test split gives no
    `test/*`.
    """
    runner = quiet_trainer(trainer)
    (scores,) = runner.validate(task, data, verbose=False)
    if test and "test" in data.splits:
        tested = runner.test(task, data, verbose=False)  # none: limit_test_batches=0
        return {**scores, **(tested[0] if tested else {})}
    return dict(scores)
