"""What the dashboards need beside scalars: HParams sessions, a layout, and figures."""

import logging
import os
import re
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import (
    DATA_TYPE_FLOAT64,
    DATA_TYPE_STRING,
    STATUS_FAILURE,
    STATUS_SUCCESS,
    Experiment,
    HParamInfo,
    MetricInfo,
    MetricName,
)
from tensorboard.plugins.hparams.plugin_data_pb2 import (
    HParamsPluginData,
    SessionEndInfo,
    SessionStartInfo,
)
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from torch.utils.tensorboard import SummaryWriter

from imex_experiments.errors import is_interrupt

log = logging.getLogger(__name__)

MOST_HPARAMS = 15

COMPARED = ("model", "alpha", "h", "lr", "seed")
"""The columns to see first: TensorBoard shows five, those that are said to differ."""

Setting = str | int | float


def writer_of(trainer: pl.Trainer) -> SummaryWriter | None:
    """The run's event writer, None without a TensorBoard logger or in a helper process."""
    for logger in trainer.loggers:
        if trainer.is_global_zero and isinstance(logger, TensorBoardLogger):
            return logger.experiment
    return None


class RunLogger(TensorBoardLogger):
    """TensorBoardLogger for which a full disk is a warning: it costs curves, not the run.

    Its keys are named one by one: TensorBoardLogger takes any, and fails at the first value.
    """

    def __init__(
        self,
        save_dir: str,
        name: str = "tensorboard",
        version: str = "",
        default_hp_metric: bool = False,
    ) -> None:
        super().__init__(
            save_dir, name=name, version=version, default_hp_metric=default_hp_metric
        )

    @property
    def experiment(self) -> SummaryWriter:
        writer = super().experiment
        if isinstance(writer, SummaryWriter):
            files = writer._get_file_writer()  # a new one after each `finalize`
            if not isinstance(files.event_writer, _Lenient):
                with suppress(OSError):  # the writer itself tells of them
                    _rename_behind_others(files.event_writer)
                files.event_writer = _Lenient(files.event_writer)
        return writer

    def save(self) -> None:
        """hparams.yaml, which Lightning writes here, says nothing that .hydra does not."""
        if self._experiment is not None:
            self._experiment.flush()


EVENTS = re.compile(r"events\.out\.tfevents\.(\d+)(.*)")


def _rename_behind_others(writer: EventFileWriter) -> None:
    """Give a writer's file the last name in its folder.

    TensorBoard reads the files in the order of their names, which begin with the time. A
    clock may have been set back since the run was started.
    """
    path = Path(os.fsdecode(writer._file_name))
    own = EVENTS.fullmatch(path.name)
    names = [EVENTS.fullmatch(p.name) for p in path.parent.iterdir() if p != path]
    newest = max((int(name[1]) for name in names if name), default=-1)
    if own and int(own[1]) <= newest:
        later = path.with_name(f"events.out.tfevents.{newest + 1:010d}{own[2]}")
        path.rename(later)
        writer._file_name = str(later)
        writer._general_file_writer.filename = os.fsencode(later)


class _Lenient:
    """An event writer that stops at the first OSError, and says so."""

    def __init__(self, writer: Any) -> None:
        self.writer = writer
        self.broken = False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.writer, name)

        def attempt(*args: Any) -> Any:
            try:
                return None if self.broken else method(*args)
            except OSError as error:
                self.broken = True
                log.warning("no more curves in TensorBoard: %s", error.strerror)

        return attempt


class HParams(pl.Callback):
    """One session of the HParams tab per run, with its true status at the end.

    `hparams` are flat values, the same keys and types in every run; h and alpha of the
    network join them (an explicit network has alpha = 0). The columns of metrics are score
    and loss of the kept checkpoint, which come at the end, and the score of the last epoch
    until then; no value is written for them here, so none is false. A run that was
    interrupted has no status: it may go on, and TensorBoard keeps the first one it reads.
    """

    def __init__(self, hparams: Mapping[str, Setting]) -> None:
        if len(hparams) + 2 > MOST_HPARAMS:
            raise ValueError(
                f"hparams must be at most {MOST_HPARAMS - 2}, got {len(hparams)}"
            )
        self.hparams = dict(hparams)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        network = pl_module.network
        session = {**self.hparams, "h": float(network.h), "alpha": float(network.alpha)}
        score = pl_module.monitor.removeprefix("val/")
        columns = [f"best/val/{score}", f"test/{score}", f"val/{score}"]
        columns += ["best/val/loss", "test/loss"]
        self._write(trainer, _experiment(session, columns))
        self._write(trainer, _session_start(session))

    def on_fit_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._write(trainer, _session_end(STATUS_SUCCESS))

    def on_exception(
        self,
        trainer: pl.Trainer,
        pl_module: Any,
        exception: BaseException,
    ) -> None:
        if not is_interrupt(exception):
            self._write(trainer, _session_end(STATUS_FAILURE))

    @staticmethod
    def _write(trainer: pl.Trainer, summary: Summary) -> None:
        if writer := writer_of(trainer):
            writer._get_file_writer().add_summary(summary)


def _experiment(settings: Mapping[str, Setting], metrics: Iterable[str]) -> Summary:
    """The columns of the table. TensorBoard takes those of the first run that it reads."""
    experiment = Experiment(
        hparam_infos=[
            HParamInfo(
                name=name,
                type=DATA_TYPE_STRING if isinstance(value, str) else DATA_TYPE_FLOAT64,
                differs=name in COMPARED,
            )
            for name, value in settings.items()
        ],
        metric_infos=[MetricInfo(name=MetricName(tag=tag)) for tag in metrics],
    )
    return _summary(metadata.EXPERIMENT_TAG, experiment=experiment)


def _session_start(settings: Mapping[str, Setting]) -> Summary:
    start = SessionStartInfo(start_time_secs=time.time())
    for name, value in settings.items():
        if isinstance(value, str):
            start.hparams[name].string_value = value
        else:
            start.hparams[name].number_value = value
    return _summary(metadata.SESSION_START_INFO_TAG, session_start_info=start)


def _session_end(status: int) -> Summary:
    end = SessionEndInfo(status=status, end_time_secs=time.time())
    return _summary(metadata.SESSION_END_INFO_TAG, session_end_info=end)


def _summary(tag: str, **content: Any) -> Summary:
    data = metadata.create_summary_metadata(HParamsPluginData(**content))
    return Summary(value=[Summary.Value(tag=tag, metadata=data)])


class OneCurve(pl.Callback):
    """A resumed run takes back what was logged after its checkpoint was written."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        writer = writer_of(trainer)
        if writer and trainer.global_step > 0:
            start = SessionLog(status=SessionLog.START)
            event = Event(step=trainer.global_step, session_log=start)
            writer._get_file_writer().add_event(event, step=trainer.global_step)


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
                last = trainer.global_step - 1  # as Lightning counts for scalars
                writer.add_image(f"val/{name}", sheet, last, dataformats="HWC")
