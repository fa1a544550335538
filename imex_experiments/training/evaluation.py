"""Evaluate a trained task on the validation and test split of its data."""

from omegaconf import DictConfig

from imex_experiments.config.trainer import quiet_trainer
from imex_experiments.facts import DataModule
from imex_experiments.tasks import Task


def evaluate(
    task: Task, data: DataModule, trainer: DictConfig, test: bool = True
) -> dict[str, float]:
    """Return the `val/*` and `test/*` metrics of a task with its present weights.

    Nothing is logged. A data set without a test split has no `test/*`.
    """
    runner = quiet_trainer(trainer)
    (scores,) = runner.validate(task, data, verbose=False)
    if test and "test" in data.splits:
        tested = runner.test(task, data, verbose=False)  # none: limit_test_batches=0
        return {**scores, **(tested[0] if tested else {})}
    return dict(scores)
