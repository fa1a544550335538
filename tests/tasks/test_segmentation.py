"""Scores against hand-computed values and an independent implementation; loss and predict."""

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics.functional.classification import multiclass_jaccard_index

from imex_experiments.data.qtips import CLASSES as QTIPS
from imex_experiments.tasks import SegmentationTask
from imex_experiments.tasks.metrics import (
    PUBLISHED_CLASSES,
    PublishedIoU,
    segmentation_scores,
)

CLASSES = ("background", "white-white", "white-black", "black-black")
FACTS: Mapping[str, object] = {
    "classes": CLASSES,
    "in_channels": 1,
    "out_channels": 4,
    "mean": [70.0],
    "std": [20.0],
    "class_frequency": [0.94, 0.03, 0.02, 0.01],
}


def test_scores_by_hand() -> None:
    # true 0: 6 right, 1 called 1; true 1: 2 right, 1 called 0; class 2 all missed; no class 3.
    confusion = torch.tensor([[6, 1, 0, 0], [1, 2, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0]])
    scores = segmentation_scores(confusion, CLASSES)
    assert scores["iou/background"] == pytest.approx(6 / 8)
    assert scores["iou/white-white"] == pytest.approx(2 / 6)
    assert scores["iou/white-black"] == 0
    assert math.isnan(scores["iou/black-black"])
    assert scores["miou"] == pytest.approx((6 / 8 + 2 / 6 + 0) / 3)
    assert scores["object_iou"] == pytest.approx((2 / 6 + 0) / 2)
    assert scores["dice"] == pytest.approx((12 / 14 + 4 / 8 + 0) / 3)
    assert scores["accuracy"] == pytest.approx(8 / 12)


def test_miou_agrees_with_torchmetrics() -> None:
    generator = torch.Generator().manual_seed(0)
    truth, guess = torch.randint(0, 4, (2, 3, 16, 16), generator=generator)
    confusion = (truth * 4 + guess).flatten().bincount(minlength=16).view(4, 4)
    expected = multiclass_jaccard_index(guess, truth, num_classes=4)
    assert segmentation_scores(confusion, CLASSES)["miou"] == pytest.approx(
        float(expected)
    )


def published_iou(guess: torch.Tensor, truth: torch.Tensor) -> float:
    metric = PublishedIoU()
    metric.update(guess, truth)
    return float(metric.compute())


def test_published_iou_is_a_mean_over_images_whatever_the_batches() -> None:
    """By hand: labels 1 against 3 share a bit of two, 2 against 1 none, empty is right."""
    truth = torch.tensor([[[1, 3, 0]], [[1, 2, 0]], [[0, 0, 0]]], dtype=torch.uint8)
    guess = torch.tensor([[[3, 3, 1]], [[2, 2, 0]], [[0, 0, 0]]])
    images = [(1 + 3) / (3 + 3 + 1), 2 / (3 + 2), 1.0]
    assert published_iou(guess, truth) == pytest.approx(sum(images) / 3)
    metric = PublishedIoU()
    for part in (slice(0, 1), slice(1, 3)):
        metric.update(guess[part], truth[part])
    assert float(metric.compute()) == published_iou(guess, truth)
    assert published_iou(truth, truth) == 1


@pytest.mark.parametrize(("called", "floor"), [(1, 4 / 9), (2, 5 / 9), (3, 2 / 3)])
def test_floor_of_the_published_iou(called: int, floor: float) -> None:
    """Every object found and called by one class; the standard IoU knows better."""
    truth = torch.zeros(3, 6, 6, dtype=torch.uint8)
    for true in (1, 2, 3):
        truth[true - 1, 2:5, 1:4] = true
    guess = (truth > 0).long() * called
    assert published_iou(guess, truth) == pytest.approx(floor)
    confusion = (truth.long() * 4 + guess).flatten().bincount(minlength=16).view(4, 4)
    scores = segmentation_scores(confusion, CLASSES)
    assert scores["object_iou"] == pytest.approx(1 / 9)


def test_loss_weighs_every_class_by_one_minus_its_frequency() -> None:
    task = SegmentationTask(nn.Identity(), FACTS)
    logits = torch.randn(2, 4, 3, 3)
    labels = torch.randint(0, 4, (2, 3, 3), dtype=torch.uint8)
    weights = 1 - torch.tensor(FACTS["class_frequency"])
    surprise = -logits.log_softmax(1).gather(1, labels.long()[:, None])[:, 0]
    pixel_weights = weights[labels.long()]
    expected = (pixel_weights * surprise).sum() / pixel_weights.sum()
    torch.testing.assert_close(task.loss(logits, labels), expected)


def test_predict_normalises_and_restores_the_mode() -> None:
    class Spy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen = x
            return torch.cat([x, -x, x + 1, -x], dim=1)

    spy = Spy()
    task = SegmentationTask(spy, FACTS).train()
    images = torch.tensor([70, 90], dtype=torch.uint8).view(2, 1, 1, 1)
    labels = task.predict(images)
    assert spy.seen.flatten().tolist() == [0.0, 1.0]
    assert labels.shape == (2, 1, 1)
    assert labels.dtype == torch.uint8
    assert labels.flatten().tolist() == [2, 2]
    assert task.training


def test_figures_hold_all_samples_and_classes() -> None:
    task = SegmentationTask(nn.Conv2d(1, 4, 1), FACTS)
    images = torch.randint(0, 256, (3, 1, 32, 32), dtype=torch.uint8)
    labels = torch.randint(0, 4, (3, 32, 32), dtype=torch.uint8)
    sheet = task.figures(images, labels)["segmentation"]
    zoom = 4
    assert sheet.shape[0] > 3 * 32 * zoom
    assert sheet.shape[1] > (3 + len(CLASSES)) * 32 * zoom
    # The first panel is the first image, enlarged.
    panel = sheet[22 : 22 + 128, 6 : 6 + 128, 0]
    assert (panel[::zoom, ::zoom] == images[0, 0].numpy()).all()


@pytest.mark.parametrize(
    "images",
    [
        torch.rand(2, 1, 8, 8),
        torch.zeros(2, 1, 8, 8, dtype=torch.int64),
        torch.zeros(2, 3, 8, 8, dtype=torch.uint8),
        torch.zeros(1, 8, 8, dtype=torch.uint8),
    ],
    ids=["floats", "long integers", "colour", "no batch"],
)
def test_what_are_no_grey_values_is_refused(images: torch.Tensor) -> None:
    """Greys between 0 and 1 would be read as of 0 to 255; colours would be broadcast."""
    task = SegmentationTask(nn.Conv2d(1, 4, 1), FACTS)
    for ask in (task.predict, task.probabilities):
        with pytest.raises(ValueError, match="expected uint8 images, 0 to 255") as told:
            ask(images)
        assert str(tuple(images.shape)) in str(told.value)
        assert str(images.dtype).removeprefix("torch.") in str(told.value)


def test_training_loss_takes_what_the_network_asks_for() -> None:
    class Rough(nn.Conv2d):
        def penalty(self) -> torch.Tensor:
            return 3 * self.weight.square().sum()

    class Plain(Rough):
        def penalty(self) -> None:
            return None

    batch = torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(2, 4, 4).byte()
    losses = []
    for kind in (Rough, Plain):
        torch.manual_seed(0)
        task = SegmentationTask(kind(1, 4, 1), FACTS)
        task.log = lambda *_, **__: None
        losses.append(task.training_step(batch, 0))
    difference = 3 * task.network.weight.square().sum()
    torch.testing.assert_close(losses[0] - losses[1], difference)


STREETS: Mapping[str, object] = {
    "classes": ["sky", "road", "car", "tree"],
    "in_channels": 1,
    "out_channels": 4,
    "mean": [0.0],
    "std": [1.0],
    "dtype": "uint8",
    "class_frequency": [0.25] * 4,
    "ignore_label": 255,
}


class Given(nn.Module):
    """A network whose output is given, whatever it sees."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        return self.logits[: len(y)]


def test_ignored_pixels_are_in_no_score_and_no_loss() -> None:
    """Against a confusion matrix counted pixel by pixel in NumPy, over two batches."""
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((3, 4, 8, 9)).astype(np.float32)
    labels = rng.integers(0, 3, (3, 8, 9))  # no pixel is a tree
    labels[rng.random(labels.shape) < 0.3] = 255
    labels[2] = 255  # an image of which nothing counts
    task = SegmentationTask(Given(torch.from_numpy(logits)), STREETS).eval()
    truth = torch.from_numpy(labels.astype(np.uint8))
    for part in (slice(0, 2), slice(2, 3)):
        task.network.logits = torch.from_numpy(logits[part])
        batch = torch.zeros(len(truth[part]), 1, 8, 9).byte(), truth[part]
        task.validation_step(batch, 0)
    confusion, losses = np.zeros((4, 4), int), []
    for n, i, j in np.ndindex(labels.shape):
        if labels[n, i, j] != 255:
            pixel = logits[n, :, i, j].astype(float)
            confusion[labels[n, i, j], pixel.argmax()] += 1
            losses.append(np.log(np.exp(pixel).sum()) - pixel[labels[n, i, j]])
    scores = task._scores()
    assert task.confusion.compute().tolist() == confusion.tolist()
    hits, either = confusion.diagonal(), confusion.sum(0) + confusion.sum(1)
    iou = hits[:3] / (either - hits)[:3]
    assert scores["miou"] == pytest.approx(iou.mean())
    assert scores["accuracy"] == pytest.approx(hits.sum() / confusion.sum())
    assert scores["dice"] == pytest.approx((2 * hits / either)[:3].mean())
    assert scores["iou/car"] == pytest.approx(iou[2])
    assert math.isnan(scores["iou/tree"])  # guessed, but never true
    assert confusion[:, 3].sum() > 0
    assert scores["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert task.score(torch.from_numpy(logits), truth) == pytest.approx(iou.mean())
    each = task.sample_losses(torch.from_numpy(logits), truth)
    assert float(each[2]) == 0
    counts = (truth != 255).sum((1, 2))
    assert float((each * counts).sum()) == pytest.approx(sum(losses), rel=1e-5)


def test_a_batch_of_ignored_pixels_has_no_gradient() -> None:
    task = SegmentationTask(nn.Identity(), STREETS)
    logits = torch.randn(1, 4, 3, 3, requires_grad=True)
    loss = task.loss(logits, torch.full((1, 3, 3), 255).byte())
    loss.backward()
    assert float(loss.detach()) == 0
    assert float(logits.grad.abs().max()) == 0


def test_scores_follow_the_data() -> None:
    """Objects need a background, and the published IoU is for Q-tips alone."""
    confusion = torch.ones(4, 4)
    assert "object_iou" not in segmentation_scores(confusion, STREETS["classes"])
    assert "object_iou" in segmentation_scores(confusion, ["Background", *"abc"])
    assert PUBLISHED_CLASSES == QTIPS
    for facts, published in ((STREETS, False), (FACTS, True)):
        task = SegmentationTask(Given(torch.randn(1, 4, 2, 2)), facts)
        task.validation_step(
            (torch.zeros(1, 1, 2, 2).byte(), torch.ones(1, 2, 2).byte()), 0
        )
        scores = task._scores()
        charts = {tag for tags in task.curves.values() for tag in tags}
        assert ("published_iou" in scores) is published
        assert ("object_iou" in scores) is published
        logged = {f"val/{name}" for name in scores} | {"train/loss"}
        assert charts <= logged


def test_score_and_losses_of_outputs() -> None:
    """The score is the mIoU of all samples; an image's loss does not see the others."""
    task = SegmentationTask(nn.Identity(), FACTS)
    logits = torch.randn(3, 4, 8, 8)
    labels = torch.randint(0, 4, (3, 8, 8), dtype=torch.uint8)
    expected = multiclass_jaccard_index(logits.argmax(1), labels.long(), num_classes=4)
    assert task.score(logits, labels) == pytest.approx(float(expected))
    losses = task.sample_losses(logits, labels)
    surprise = -logits.log_softmax(1).gather(1, labels.long()[:, None])[:, 0]
    torch.testing.assert_close(losses, surprise.mean((1, 2)))
    torch.testing.assert_close(
        task.sample_losses(logits[1:2], labels[1:2])[0], losses[1]
    )
