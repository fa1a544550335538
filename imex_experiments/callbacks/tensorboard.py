"""What the dashboards need beside scalars: HParams sessions, a layout, and figures."""

import time
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE, STATUS_SUCCESS
from tensorboard.plugins.hparams.plugin_data_pb2 import (
    HParamsPluginData,
    SessionEndInfo,
)
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams as hparams_summaries

MOST_HPARAMS = 15


def writer_of(trainer: pl.Trainer) -> SummaryWriter | None:
    """The run's event writer, None without a TensorBoard logger or in a helper process."""
    for logger in trainer.loggers:
        if trainer.is_global_zero and isinstance(logger, TensorBoardLogger):
            return logger.experiment
    return None


class HParams(pl.Callback):
    """One session of the HParams tab per run, with its true status at the end.

    `hparams` are flat values, the same keys and types in every run; h and alpha of the
    network join them (an explicit network has alpha = 0). The columns of metrics are the
    kept checkpoint's loss and score; no value is written for them here, so none is false.
    """

    def __init__(self, hparams: Mapping[str, str | int | float]) -> None:
        if len(hparams) + 2 > MOST_HPARAMS:
            raise ValueError(
                f"hparams must be at most {MOST_HPARAMS - 2}, got {len(hparams)}"
            )
        self.hparams = dict(hparams)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        network = pl_module.network
        session = {**self.hparams, "h": float(network.h), "alpha": float(network.alpha)}
        score = pl_module.monitor.removeprefix("val/")
        columns = [
            f"{split}/{m}" for split in ("best/val", "test") for m in (score, "loss")
        ]
        experiment, start, _ = hparams_summaries(session, dict.fromkeys(columns))
        self._write(trainer, experiment)
        self._write(trainer, start)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._write(trainer, _session_end(STATUS_SUCCESS))

    def on_exception(
        self,
        trainer: pl.Trainer,
        pl_module: Any,
        exception: BaseException,
    ) -> None:
        self._write(trainer, _session_end(STATUS_FAILURE))

    @staticmethod
    def _write(trainer: pl.Trainer, summary: Summary) -> None:
        if writer := writer_of(trainer):
            writer._get_file_writer().add_summary(summary)


def _session_end(status: int) -> Summary:
    end = SessionEndInfo(status=status, end_time_secs=time.time())
    content = metadata.create_summary_metadata(HParamsPluginData(session_end_info=end))
    return Summary(
        value=[Summary.Value(tag=metadata.SESSION_END_INFO_TAG, metadata=content)]
    )


class CustomScalars(pl.Callback):
    """The layout of the custom-scalars tab, as the task lists its curves."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if writer := writer_of(trainer):
            charts = {
                chart: ["Multiline", list(tags)]
                for chart, tags in pl_module.curves.items()
            }
            writer.add_custom_scalars({"training": charts})


class Figures(pl.Callback):
    """Sheets of the first `samples` validation images, one image per tag and validation."""

    def __init__(self, samples: int = 6) -> None:
        if samples < 1:
            raise ValueError(f"samples must be >= 1, got {samples}")
        self.samples = samples

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if writer := writer_of(trainer):
            data: Any = trainer.datamodule  # type: ignore[attr-defined]
            samples = data.samples("val", self.samples)
            for name, sheet in pl_module.figures(*samples).items():
                writer.add_image(
                    f"val/{name}", sheet, trainer.global_step, dataformats="HWC"
                )
