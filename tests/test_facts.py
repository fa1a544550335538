"""The contract of data: what a module states, and inputs of floats in every task."""

from collections.abc import Collection
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from imex_experiments.config.parts import build_data
from imex_experiments.data import DataModule, Facts, QtipsData
from imex_experiments.errors import ConfigError, DataError
from imex_experiments.facts import complete
from imex_experiments.tasks import (
    ClassificationTask,
    DepthTask,
    RegressionTask,
    SegmentationTask,
    Task,
)
from imex_experiments.training.prepared import check_samples

OLD: dict[str, Any] = {"in_channels": 1, "out_channels": 2, "mean": [0.0], "std": [1]}
FLOATS = Facts(
    in_channels=3,
    out_channels=2,
    mean=[0.5, 0.0, -2.0],
    std=[0.1, 1.0, 3.0],
    dtype="float32",
    classes=["a", "b"],
    class_frequency=[0.5, 0.5],
    depth_mean=2.0,
    depth_std=1.0,
)


def test_old_checkpoints_do_not_say_the_type_of_their_inputs() -> None:
    assert complete(OLD)["dtype"] == "uint8"
    assert complete({**OLD, "range": [-1.0, 1.0]})["dtype"] == "float32"
    assert complete({**OLD, "range": [0.0, 1.0], "dtype": "uint8"})["dtype"] == "uint8"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            {"in_channels": 1.0},
            r"facts\['in_channels'\]=1\.0: expected an integer >= 1",
        ),
        ({"mean": None}, r"facts\['mean'\]=None: expected a list with one finite"),
        ({"mean": [0.0, 1.0]}, r"facts\['mean'\]=\[0\.0, 1\.0\]"),
        ({"std": [0.0]}, r"facts\['std'\]=\[0\.0\]: expected .* > 0 per channel"),
        ({"std": [float("nan")]}, r"facts\['std'\]=\[nan\]"),
        ({"dtype": "float16"}, "'float16': expected uint8 or float32"),
    ],
)
def test_unsound_facts_are_named(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        complete({**OLD, **change})


def test_missing_facts_are_named() -> None:
    with pytest.raises(ValueError, match=r"facts\['out_channels'\]: missing"):
        complete({k: v for k, v in OLD.items() if k != "out_channels"})
    with pytest.raises(ValueError, match=r"facts\['class_frequency'\]: missing"):
        SegmentationTask(nn.Identity(), {**OLD, "classes": ["a", "b"]})


@pytest.mark.parametrize(
    ("kind", "network", "targets"),
    [
        (SegmentationTask, nn.Conv2d(3, 2, 1), torch.zeros(2, 32, 32).byte()),
        (DepthTask, nn.Conv2d(3, 1, 1), torch.ones(2, 1, 32, 32)),
        (
            ClassificationTask,
            nn.Sequential(nn.Conv2d(3, 2, 32), nn.Flatten()),
            torch.zeros(2).byte(),
        ),
        (RegressionTask, nn.Conv2d(3, 1, 32), torch.ones(2, 1, 1, 1)),
    ],
)
def test_images_of_floats_fit_every_task(
    kind: type[Task], network: nn.Module, targets: Tensor
) -> None:
    task = kind(network, FLOATS)
    images = torch.randn(2, 3, 32, 32)
    assert torch.isfinite(task.training_step((images, targets), 0))
    task.validation_step((images, targets), 0)
    assert len(task.predict(images)) == 2
    for picture in task.figures(images, targets).values():
        assert picture.dtype == np.uint8
    with pytest.raises(ValueError, match=r"expected floats .*, got uint8"):
        task.predict(images.byte())


def test_pictures_of_floats_span_two_deviations_of_each_channel() -> None:
    task = SegmentationTask(nn.Identity(), FLOATS)
    mean, std = (torch.tensor(FLOATS[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
    for deviations, grey in ((-3, 0), (-2, 0), (0, 127), (2, 255), (9, 255)):
        shown = task.pictures(mean + deviations * std).astype(int)
        assert np.abs(shown - grey).max() <= 1


class Stream(DataModule):
    """A data module that holds nothing in memory."""

    batch_size, in_channels, out_channels = 2, 3, 2
    image_shape = 3, 8, 8
    splits: Collection[str] = ()
    facts = FLOATS

    def setup(self, stage: str | None = None) -> None:
        self.splits = ("train", "val")

    def samples(self, split: str, number: int) -> tuple[Tensor, ...]:
        return torch.randn(number, 3, 8, 8), torch.zeros(number, 8, 8).byte()


def test_samples_that_differ_from_the_facts_are_a_data_error() -> None:
    check_samples(Stream(), FLOATS)
    for change, complaint in (
        ({"dtype": "uint8"}, r"gives float32 of .* facts state uint8"),
        ({"in_channels": 1}, r"shape \(1, 3, 8, 8\), but .* \(N, 1, H, W\)"),
    ):
        with pytest.raises(DataError, match=complaint):
            check_samples(Stream(), Facts(**{**FLOATS, **change}))


def test_a_module_that_lacks_an_attribute_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = {"_target_": "imex_experiments.data.QtipsData", "cache_dir": "x"}
    cfg = OmegaConf.create({"data": target})
    assert build_data(cfg).batch_size == 16
    monkeypatch.delattr(QtipsData, "out_channels")
    with pytest.raises(ConfigError, match="data: QtipsData has no out_channels"):
        build_data(cfg)
    with pytest.raises(TypeError, match="abstract"):
        DataModule()  # type: ignore[abstract]
