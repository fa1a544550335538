"""The numbers of a trained task on the splits of its data."""

from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig

from imex_experiments.runs.assemble import lightning
from imex_experiments.runs.build import build
from imex_experiments.tasks import Task


def evaluate(task: Task, data: Any, trainer: DictConfig) -> dict[str, float]:
    """All `val/*` and `test/*` metrics of the task as it is, by name.

    No curve of the run gets another point. A data set without a test split gives no
    `test/*`.
    """
    runner = quiet_trainer(trainer)
    (scores,) = runner.validate(task, data, verbose=False)
    if "test" in data.splits:
        tested = runner.test(task, data, verbose=False)  # none: limit_test_batches=0
        return {**scores, **(tested[0] if tested else {})}
    return dict(scores)


def quiet_trainer(trainer: DictConfig, **options: Any) -> pl.Trainer:
    """A trainer as configured, but on one device, and one that leaves no traces."""
    quiet: dict[str, Any] = {
        "devices": 1,
        "num_nodes": 1,
        "strategy": "auto",
        "profiler": None,
        "logger": False,
        "callbacks": None,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return build(lightning(trainer), "trainer", **{**quiet, **options})
