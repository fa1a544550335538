"""The event files of a run, read back the way TensorBoard reads them."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE, STATUS_SUCCESS
from torch import nn

from imex_experiments.callbacks import HParams
from imex_experiments.facts import Facts
from imex_experiments.tasks import RegressionTask


@pytest.fixture(scope="module")
def events(trained: Path) -> EventAccumulator:
    accumulator = EventAccumulator(
        str(trained / "tensorboard"), size_guidance={"images": 0}
    )
    accumulator.Reload()
    return accumulator


def test_scalars_have_one_point_per_epoch_and_the_kept_scores_one(
    events: EventAccumulator, trained: Path
) -> None:
    tags = events.Tags()["scalars"]
    for tag in (
        "train/loss",
        "train/lr",
        "val/loss",
        "val/miou",
        "val/iou/white-black",
    ):
        assert tag in tags
    assert len(events.Scalars("val/miou")) == 2
    metrics = json.loads((trained / "metrics.json").read_text())
    for tag, name in (("best/val/miou", "val/miou"), ("test/miou", "test/miou")):
        (point,) = events.Scalars(tag)
        assert point.value == pytest.approx(metrics[name])
    assert "hp_metric" not in tags


def test_one_figure_per_validation(events: EventAccumulator) -> None:
    images = events.Images("val/segmentation")
    assert [image.step for image in images] == [2, 5]
    assert images[0].width > 7 * 128


def test_hparams_session(events: EventAccumulator) -> None:
    plugin = events.PluginTagToContent("hparams")
    experiment = metadata.parse_experiment_plugin_data(plugin[metadata.EXPERIMENT_TAG])
    start = metadata.parse_session_start_info_plugin_data(
        plugin[metadata.SESSION_START_INFO_TAG]
    )
    end = metadata.parse_session_end_info_plugin_data(
        plugin[metadata.SESSION_END_INFO_TAG]
    )
    columns = [info.name.tag for info in experiment.metric_infos]
    assert columns == [
        *("best/val/miou", "test/miou", "val/miou"),
        *("best/val/loss", "test/loss"),
    ]
    assert set(columns) <= set(events.Tags()["scalars"])
    values = dict(start.hparams.items())
    assert values["model"].string_value == "imexnet"
    assert values["alpha"].number_value == 100
    assert values["h"].number_value == 1
    assert len(values) <= 15
    assert end.status == STATUS_SUCCESS


def test_a_network_without_h_and_alpha_has_no_such_columns(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name="", version="")
    trainer: Any = SimpleNamespace(loggers=[logger], is_global_zero=True)
    one = {"in_channels": 1, "out_channels": 1, "dtype": "uint8"}
    facts = Facts(mean=[0.0], std=[1.0], **one)
    task = RegressionTask(nn.Identity(), facts)
    assert task.scales == {"h": None, "alpha": None}
    HParams({"seed": 1}).on_fit_start(trainer, task)
    logger.experiment.close()
    found = EventAccumulator(str(tmp_path)).Reload().PluginTagToContent("hparams")
    start = metadata.parse_session_start_info_plugin_data(
        found[metadata.SESSION_START_INFO_TAG]
    )
    assert [*start.hparams] == ["seed"]


@pytest.mark.parametrize(
    ("error", "ends"),
    [(ValueError("diverged"), True), (KeyboardInterrupt(), False)],
    ids=["failed", "interrupted"],
)
def test_an_interrupted_session_has_no_end_and_may_succeed_later(
    error: BaseException, ends: bool, tmp_path: Path
) -> None:
    """TensorBoard keeps the first status of a run, whatever a resumed one adds."""
    logger = TensorBoardLogger(tmp_path, name="", version="")
    trainer: Any = SimpleNamespace(loggers=[logger], is_global_zero=True)
    HParams({}).on_exception(trainer, None, error)
    HParams({}).on_fit_end(trainer, None)
    logger.experiment.close()
    found = EventAccumulator(str(tmp_path)).Reload().PluginTagToContent("hparams")
    end = metadata.parse_session_end_info_plugin_data(
        found[metadata.SESSION_END_INFO_TAG]
    )
    assert end.status == (STATUS_FAILURE if ends else STATUS_SUCCESS)


def test_custom_scalars_layout_names_existing_scalars(events: EventAccumulator) -> None:
    (event,) = events.Tensors("custom_scalars__config__")
    layout = Layout.FromString(event.tensor_proto.string_val[0])
    tags = {tag for chart in layout.category[0].chart for tag in chart.multiline.tag}
    assert {"train/loss", "val/loss", "val/miou"} <= tags
    assert tags <= set(events.Tags()["scalars"])


def test_figure_of_the_kept_checkpoint_is_saved(trained: Path) -> None:
    with Image.open(trained / "figures/segmentation.png") as image:
        assert image.size[0] > 7 * 128
