"""Which weights decay, and a learning rate that goes down in steps."""

from functools import partial

import pytest
import torch
from conftest import rounding
from torch import nn

from imex_experiments.tasks import ClassificationTask, MultiStep
from imex_experiments.terms import SymmetricLayer

FACTS = {"in_channels": 1, "out_channels": 2, "classes": ["a", "b"]}
FACTS |= {"mean": [0.0], "std": [1.0]}


def test_norms_do_not_decay_and_the_rest_does() -> None:
    """Without gradients a step of SGD is the decay alone, theta (1 - lr decay)."""
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        SymmetricLayer(4, norm="tv", bias=True),
        nn.GroupNorm(2, 4),
    )
    sgd = partial(torch.optim.SGD, lr=0.5, weight_decay=0.1)
    for undecayed, kept in (("norms", {"1", "3", "2.norm"}), (None, set())):
        task = ClassificationTask(network, FACTS, sgd, undecayed=undecayed)
        task._trainer = None
        optimizer = task.configure_optimizers()
        for parameter in network.parameters():
            nn.init.ones_(parameter)
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        for name, parameter in network.named_parameters():
            wanted = 1.0 if name.rpartition(".")[0] in kept else 1 - 0.5 * 0.1
            torch.testing.assert_close(parameter, torch.full_like(parameter, wanted))
    with pytest.raises(ValueError, match="undecayed must be null or norms, got 'bias'"):
        ClassificationTask(network, FACTS, sgd, undecayed="bias")


@pytest.mark.parametrize("steps_per_epoch", [1, 3, 320])
def test_learning_rate_steps_down_at_the_start_of_an_epoch(
    steps_per_epoch: int,
) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = MultiStep(optimizer, 12 * steps_per_epoch, 12, [6, 8, 10])
    rates = []
    for _ in range(12 * steps_per_epoch):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    expected = [0.1] * 6 + [0.01] * 2 + [0.001] * 2 + [0.0001] * 2
    per_step = [rate for rate in expected for _ in range(steps_per_epoch)]
    # Three products with 0.1, which is rounded itself, against a rounded power of it.
    assert rates == pytest.approx(per_step, rel=rounding(torch.float64, 3 + 3 + 1))


@pytest.mark.parametrize(
    ("epochs", "milestones", "complaint"),
    [
        (0, [1], "epochs must be >= 1, got 0"),
        (9, [3, 3], r"milestones must be positive and increasing, got \[3, 3\]"),
        (9, [0, 3], r"milestones must be positive and increasing, got \[0, 3\]"),
    ],
)
def test_unsound_schedules_are_refused(
    epochs: int, milestones: list[int], complaint: str
) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    with pytest.raises(ValueError, match=complaint):
        MultiStep(optimizer, 90, epochs, milestones)
