"""Regression and classification: scores by hand, and figures of what was learned."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from imex_experiments.data import Function1dData, SpiralsData
from imex_experiments.tasks import ClassificationTask, RegressionTask, Task


def logged(task: Task) -> dict[str, float]:
    """Where `task.log` writes to."""
    scores: dict[str, float] = {}
    task.log = lambda name, value, **_: scores.update({name: float(value)})
    return scores


def test_regression_scores_are_means_over_all_points() -> None:
    """Two batches of different sizes: errors 1, 2, 2 give an MSE of 3."""
    data = Function1dData()
    data.setup()
    task = RegressionTask(nn.Identity(), data.facts)
    scores = logged(task)
    x = torch.zeros(3, 1, 1, 1)
    task.validation_step((x[:1], x[:1] + 1), 0)
    task.validation_step((x[1:], x[1:] + 2), 1)
    task.on_validation_epoch_end()
    assert scores == {"val/loss": 3.0, "val/rmse": pytest.approx(3**0.5)}


def test_tasks_without_an_answer_per_pixel_say_so() -> None:
    data = Function1dData()
    data.setup()
    task = RegressionTask(nn.Identity(), data.facts)
    for ask in (task.score, task.sample_losses):
        with pytest.raises(ValueError, match="RegressionTask has no"):
            ask(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1))


def test_classification_counts_what_is_right() -> None:
    class Signs(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([-x[:, 0, 0, 0], x[:, 0, 0, 0]], dim=1)

    data = SpiralsData()
    data.setup()
    task = ClassificationTask(Signs(), data.facts)
    scores = logged(task)
    x = torch.tensor([1.0, -1.0, 2.0]).view(3, 1, 1, 1).expand(3, 2, 1, 1)
    labels = torch.tensor([1, 0, 0], dtype=torch.uint8)
    task.validation_step((x[:2], labels[:2]), 0)
    task.validation_step((x[2:], labels[2:]), 1)
    task.on_validation_epoch_end()
    assert scores["val/accuracy"] == pytest.approx(2 / 3)
    losses = [np.log1p(np.exp(-2)), np.log1p(np.exp(-2)), np.log1p(np.exp(4))]
    assert scores["val/loss"] == pytest.approx(np.mean(losses))
    assert task.predict(x).tolist() == [1, 0, 1]
    with pytest.raises(ValueError, match=r"expected floats of shape \(N, 2, H, W\)"):
        task.predict(x.byte())


def test_fit_shows_the_network_and_the_points() -> None:
    data = Function1dData()
    data.setup()
    pictures = [
        RegressionTask(network, data.facts).figures(*data.samples("val", 6))["fit"]
        for network in (nn.Identity(), nn.Hardtanh(0, 0.1))
    ]
    assert pictures[0].dtype == np.uint8
    assert pictures[0].shape[2] == 3
    assert not np.array_equal(*pictures)


def test_boundary_shows_the_side_of_each_class() -> None:
    """A network that splits the plane at x = 0: dark left, bright right."""

    class Halves(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([-9 * x[:, 0, 0, 0], 9 * x[:, 0, 0, 0]], dim=1)

    data = SpiralsData()
    data.setup()
    task = ClassificationTask(Halves(), data.facts)
    picture = task.figures(*data.samples("val", 6))["boundary"].astype(float)
    height, width, _ = picture.shape
    rows = slice(int(0.85 * height), int(0.9 * height))
    left = picture[rows, int(0.15 * width) : int(0.25 * width)].mean((0, 1))
    right = picture[rows, int(0.6 * width) : int(0.65 * width)].mean((0, 1))
    assert right[:2].mean() > left[:2].mean() + 100


def test_images_are_shown_with_their_classes() -> None:
    facts = {"in_channels": 3, "out_channels": 3, "classes": list("abc")}
    facts |= {"mean": [0.0] * 3, "std": [255.0] * 3}

    class Means(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3))

    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    labels = torch.zeros(4, dtype=torch.uint8)
    sheet = ClassificationTask(Means(), facts).figures(images, labels)["classes"]
    assert sheet.shape[1] > 4 * 128
    assert (
        sheet[22 : 22 + 128 : 4, 6 : 6 + 128 : 4] == images[0].permute(1, 2, 0).numpy()
    ).all()
