"""The numbers of a trained task on the splits of its data."""

from typing import Any

from omegaconf import DictConfig

from imex_experiments.runs.assemble import lightning
from imex_experiments.runs.build import build
from imex_experiments.tasks import Task


def evaluate(task: Task, data: Any, trainer: DictConfig) -> dict[str, float]:
    """All `val/*` and `test/*` metrics of the task as it is, by name.

    A trainer of its own, without logger, checkpoints or progress bar, so that no curve of
    the run gets another point. A data set without a test split gives no `test/*`.
    """
    quiet: dict[str, Any] = {
        "logger": False,
        "callbacks": None,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    runner = build(lightning(trainer), "trainer", **quiet)
    (scores,) = runner.validate(task, data, verbose=False)
    if "test" in data.splits:
        (test_scores,) = runner.test(task, data, verbose=False)
        scores = {**scores, **test_scores}
    return scores


def last_epoch(metrics: dict[str, Any]) -> dict[str, float]:
    """`last/val/*`: what the final epoch's validation gave."""
    return {
        f"last/{name}": float(value)
        for name, value in metrics.items()
        if name.startswith("val/")
    }
