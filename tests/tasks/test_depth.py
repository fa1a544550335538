"""Depth scores by hand and against an independent implementation; losses; the task."""

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from conftest import rounding
from torch import Tensor, nn

from imex_experiments.tasks import DepthTask
from imex_experiments.tasks.depth_metrics import SCORES, depth_scores, valid_pixels
from imex_experiments.tasks.losses import LOSSES, depth_loss

FACTS: Mapping[str, object] = {
    "in_channels": 3,
    "out_channels": 1,
    "mean": [100.0, 90.0, 80.0],
    "std": [50.0, 50.0, 50.0],
    "depth_mean": 3.0,
    "depth_std": 2.0,
}


def as_image(*values: float) -> Tensor:
    return torch.tensor(values).view(1, 1, 1, -1)


def test_scores_by_hand() -> None:
    truth, prediction = as_image(1.0, 2.0, 4.0, 0.0), as_image(1.0, 4.0, 3.0, 9.0)
    scores = depth_scores(prediction, truth, valid_pixels(truth))
    value = {name: float(score) for name, score in scores.items()}
    logs = [0.0, math.log(2), math.log(3 / 4)]
    assert value["misfit"] == pytest.approx((0 + 4 + 1) / 3 / 2)
    assert value["rmse"] == pytest.approx(math.sqrt(5 / 3))
    assert value["abs_rel"] == pytest.approx((0 + 1 + 1 / 4) / 3)
    assert value["sq_rel"] == pytest.approx((0 + 2 + 1 / 4) / 3)
    assert value["rmse_log"] == pytest.approx(math.sqrt(sum(e**2 for e in logs) / 3))
    assert value["log10"] == pytest.approx(sum(map(abs, logs)) / 3 / math.log(10))
    assert value["delta1"] == pytest.approx(1 / 3)  # ratios 1, 2, 1.333
    assert value["delta2"] == pytest.approx(2 / 3)
    assert value["delta3"] == pytest.approx(2 / 3)
    variance = sum(e**2 for e in logs) / 3 - (sum(logs) / 3) ** 2
    assert value["silog"] == pytest.approx(100 * math.sqrt(variance))


def independent(d: np.ndarray, z: np.ndarray) -> dict[str, float]:
    """The usual NumPy evaluation loop of the field, for one image and 1-D valid pixels."""
    c = np.clip(d, 1e-3, 10)
    threshold = np.maximum(z / c, c / z)
    return {
        "misfit": 0.5 * np.average((z - d) ** 2),
        "rmse": np.sqrt(np.mean((z - d) ** 2)),
        "abs_rel": np.mean(np.abs(z - d) / z),
        "sq_rel": np.mean((z - d) ** 2 / z),
        "rmse_log": np.sqrt(np.mean((np.log(z) - np.log(c)) ** 2)),
        "log10": np.mean(np.abs(np.log10(z) - np.log10(c))),
        **{f"delta{k}": np.mean(threshold < 1.25**k) for k in (1, 2, 3)},
        "silog": 100 * np.std(np.log(c) - np.log(z)),
    }


def test_scores_agree_with_an_independent_implementation() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(4, 1, 12, 9, generator=generator) * 12 - 1  # some invalid
    prediction = torch.rand(4, 1, 12, 9, generator=generator) * 12 - 1  # some clamped
    valid = valid_pixels(truth)
    scores = depth_scores(prediction, truth, valid)
    # Sums over 12 x 9 pixels; mean e^2 is less than twice silog's variance.
    rel = rounding(torch.float64, 12 * 9, 2)
    for index in range(4):
        mask = valid[index].numpy()
        d, z = (t[index].double().numpy()[mask] for t in (prediction, truth))
        for name, expected in independent(d, z).items():
            assert float(scores[name][index]) == pytest.approx(expected, rel=rel), name


@pytest.mark.parametrize("name", SCORES)
def test_perfect_prediction_scores_perfectly(name: str) -> None:
    truth = torch.rand(2, 1, 4, 4) * 8 + 1
    score = depth_scores(truth, truth, valid_pixels(truth))[name]
    expected = 1.0 if name.startswith("delta") else 0.0
    torch.testing.assert_close(score, torch.full((2,), expected).double())


@pytest.mark.parametrize("unknown", [0.0, -1.0, 10.0, 50.0, math.nan, math.inf])
def test_unknown_depths_do_not_count(unknown: float) -> None:
    truth = as_image(2.0, unknown)
    assert valid_pixels(truth).flatten().tolist() == [True, False]
    scores = depth_scores(as_image(3.0, 7.0), truth, valid_pixels(truth))
    assert float(scores["rmse"]) == 1.0


def test_eigen_crop_is_the_published_one() -> None:
    valid = valid_pixels(torch.ones(1, 1, 480, 640), eigen_crop=True)[0, 0]
    rows, columns = torch.nonzero(valid, as_tuple=True)
    assert (int(rows.min()), int(rows.max()) + 1) == (45, 471)
    assert (int(columns.min()), int(columns.max()) + 1) == (41, 601)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_see_valid_pixels_only_and_vanish_at_the_truth(name: str) -> None:
    truth = torch.tensor([2.0, 3.0, 0.0]).view(1, 1, 1, 3)
    valid = valid_pixels(truth)
    prediction = torch.tensor([2.5, 2.0, 9.0]).view(1, 1, 1, 3).requires_grad_()
    depth_loss(name, prediction, truth, valid).backward()
    gradient = prediction.grad.flatten()
    assert gradient[2] == 0
    assert bool((gradient[:2] != 0).all())
    assert float(depth_loss(name, truth, truth, valid)) == 0


def test_l2_loss_is_the_misfit() -> None:
    truth, prediction = torch.rand(1, 1, 5, 5) + 1, torch.rand(1, 1, 5, 5) + 1
    valid = valid_pixels(truth)
    loss = depth_loss("l2", prediction, truth, valid)
    misfit = depth_scores(prediction, truth, valid)["misfit"][0]
    assert float(loss) == pytest.approx(float(misfit))


def test_batch_without_valid_pixels_has_no_gradient() -> None:
    prediction = torch.ones(1, 1, 2, 2, requires_grad=True)
    truth = torch.zeros(1, 1, 2, 2)
    loss = depth_loss("l2", prediction, truth, valid_pixels(truth))
    loss.backward()
    assert float(loss.detach()) == 0
    assert not prediction.grad.any()


def test_unknown_loss_is_told_with_the_choices() -> None:
    with pytest.raises(
        ValueError, match="loss must be one of l2, l1, huber, silog, got 'l3'"
    ):
        DepthTask(nn.Conv2d(3, 1, 1), FACTS, loss="l3")


def test_predict_gives_metres_within_the_valid_range() -> None:
    class Spy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :1]

    task = DepthTask(Spy(), FACTS)
    images = torch.tensor([0, 100, 255], dtype=torch.uint8).expand(1, 3, 1, 3)
    depth = task.predict(images)
    assert depth.shape == (1, 1, 1, 3)
    expected = [1e-3, 3.0, 3.0 + 2.0 * 155 / 50]  # -1 m is clamped
    torch.testing.assert_close(depth.flatten(), torch.tensor(expected))


def test_scores_of_a_split_are_means_over_images_and_empty_ones_are_counted() -> None:
    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros_like(x[:, :1])

    task = DepthTask(Constant(), FACTS)  # predicts 3 m everywhere
    logged: dict[str, float] = {}
    task.log = lambda name, value, **_: logged.update({name: value})  # type: ignore[assignment]
    images = torch.zeros(3, 3, 2, 2, dtype=torch.uint8)
    truth = torch.stack([torch.full((1, 2, 2), v) for v in (2.0, 5.0, 0.0)])
    task.validation_step((images[:2], truth[:2]), 0)
    task.validation_step((images[2:], truth[2:]), 1)
    task.on_validation_epoch_end()
    assert logged["val/rmse"] == pytest.approx((1 + 2) / 2)
    assert logged["val/empty"] == 1
    assert logged["val/loss"] == pytest.approx((1 / 2 + 4 / 2) / 2)


def test_figures_share_one_scale_and_mark_unknown_depths() -> None:
    task = DepthTask(nn.Conv2d(3, 1, 1), FACTS)
    images = torch.randint(0, 256, (2, 3, 24, 32), dtype=torch.uint8)
    truth = torch.rand(2, 1, 24, 32) * 8 + 1
    truth[:, :, :6] = 0
    sheet = task.figures(images, truth)["depth"]
    zoom = 4
    assert sheet.shape[1] == 6 + 4 * (32 * zoom + 6)
    depth_panel = sheet[22 : 22 + 24 * zoom, 6 + 134 : 6 + 134 + 32 * zoom]
    assert (depth_panel[: 6 * zoom] == 128).all()
    assert not (depth_panel[6 * zoom :] == 128).all(-1).any()


def test_score_and_losses_of_outputs() -> None:
    """RMSE in metres over images with a valid pixel; an empty image has the loss 0."""
    task = DepthTask(nn.Identity(), FACTS)
    truth = torch.rand(3, 1, 4, 4) * 5 + 1
    truth[2] = 0
    depth = truth + torch.tensor([0.5, 1.0, 3.0])[:, None, None, None]
    output = (depth - task.depth_mean) / task.depth_std
    assert task.score(output, truth) == pytest.approx(0.75, rel=1e-4)
    losses = task.sample_losses(output, truth).float()
    expected = torch.tensor([0.125, 0.5, 0.0])
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-6)


def test_the_range_of_valid_depths_is_that_of_the_data() -> None:
    """Streets reach further than 10 m: losses, scores and predictions follow the facts."""
    truth = as_image(5.0, 40.0, 90.0, 0.0)
    near = DepthTask(nn.Identity(), FACTS)
    far = DepthTask(nn.Identity(), {**FACTS, "depth_range": [0.1, 80.0]})
    output = as_image(1.0, 20.0, 1.0, 60.0)  # in units of the network
    metres = FACTS["depth_mean"] + FACTS["depth_std"] * output
    for task, known, highest in ((near, 1, 10.0), (far, 2, 80.0)):
        expected = (metres - truth)[..., :known].square().mean() / 2
        torch.testing.assert_close(task.loss(output, truth), expected)
        misfit = task._scores_of(output, truth)["misfit"]
        torch.testing.assert_close(misfit[0].float(), expected)
        assert float(task._decide(output).max()) == pytest.approx(highest)
