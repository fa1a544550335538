"""Write to TensorBoard what it needs beside scalars: HParams and a layout of curves."""

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
from imex_experiments.loggers import CsvLogger

log = logging.getLogger(__name__)

MOST_HPARAMS = 15

COMPARED = ("model", "alpha", "h", "lr", "seed")
"""Columns that TensorBoard shows at first; it shows five, marked as differing."""

Value = str | int | float


def writer_of(trainer: pl.Trainer) -> SummaryWriter | None:
    """Return the event writer of the run, if this process has a TensorBoard logger."""
    for logger in trainer.loggers:
        if trainer.is_global_zero and isinstance(logger, TensorBoardLogger):
            return logger.experiment
    return None


class RunLogger(TensorBoardLogger):
    """A TensorBoardLogger that warns when the disk is full instead of ending the run.

    Its parameters are named: TensorBoardLogger accepts any, and fails at the first scalar.
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
                with suppress(OSError):  # the writer reports them itself
                    _rename_behind_others(files.event_writer)
                files.event_writer = _Lenient(files.event_writer)
        return writer

    def save(self) -> None:
        """Flush, but do not write hparams.yaml: .hydra/ has the configuration."""
        if self._experiment is not None:
            self._experiment.flush()


EVENTS = re.compile(r"events\.out\.tfevents\.(\d+)(.*)")


def _rename_behind_others(writer: EventFileWriter) -> None:
    """Rename the file of a writer so that its name is the last one in its folder.

    TensorBoard reads files in the order of their names, which begin with the time. The
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
    """An event writer that stops writing at the first OSError, with a warning."""

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
    """A session of the HParams tab for each run, with its status at the end.

    `hparams` are flat values with the same keys and types in every run; h and alpha of the
    network are added if it has them (an explicit network has alpha = 0). The metric columns
    are score and loss of the kept checkpoint, logged when the run ends, and the score of
    the last epoch. The session declares these columns and writes no values: TensorBoard
    takes them from the scalars. An interrupted run gets no status, because it may be
    resumed and TensorBoard keeps the first status that it reads. Other loggers get the same
    values as their hyperparameters.
    """

    def __init__(self, hparams: Mapping[str, Value]) -> None:
        if len(hparams) + 2 > MOST_HPARAMS:
            raise ValueError(
                f"hparams must be at most {MOST_HPARAMS - 2}, got {len(hparams)}"
            )
        self.hparams = dict(hparams)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        known = {k: value for k, value in pl_module.scales.items() if value is not None}
        session = {**self.hparams, **known}
        score = pl_module.monitor.removeprefix("val/")
        columns = [f"best/val/{score}", f"test/{score}", f"val/{score}"]
        columns += ["best/val/loss", "test/loss"]
        self._write(trainer, _experiment(session, columns))
        self._write(trainer, _session_start(session))
        for logger in trainer.loggers:
            if not isinstance(logger, TensorBoardLogger):
                logger.log_hyperparams(session)

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


def _experiment(hparams: Mapping[str, Value], metrics: Iterable[str]) -> Summary:
    """Return the columns of the table, which TensorBoard takes from the first run."""
    experiment = Experiment(
        hparam_infos=[
            HParamInfo(
                name=name,
                type=DATA_TYPE_STRING if isinstance(value, str) else DATA_TYPE_FLOAT64,
                differs=name in COMPARED,
            )
            for name, value in hparams.items()
        ],
        metric_infos=[MetricInfo(name=MetricName(tag=tag)) for tag in metrics],
    )
    return _summary(metadata.EXPERIMENT_TAG, experiment=experiment)


def _session_start(hparams: Mapping[str, Value]) -> Summary:
    start = SessionStartInfo(start_time_secs=time.time())
    for name, value in hparams.items():
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
    """Discard the scalars logged after the checkpoint that a resumed run starts from.

    TensorBoard and csv files discard them. Other loggers have a run of its own for each
    part, unless their `id` or `run_id` is given.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.global_step == 0 or not trainer.is_global_zero:
            return
        if writer := writer_of(trainer):
            start = SessionLog(status=SessionLog.START)
            event = Event(step=trainer.global_step, session_log=start)
            writer._get_file_writer().add_event(event, step=trainer.global_step)
        for logger in trainer.loggers:
            if isinstance(logger, CsvLogger):
                logger.experiment.discard_from(trainer.global_step)


class CustomScalars(pl.Callback):
    """The layout of the custom-scalars tab, made of the curves that the task lists."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if writer := writer_of(trainer):
            charts = {
                chart: ["Multiline", list(tags)]
                for chart, tags in pl_module.curves.items()
            }
            writer.add_custom_scalars({"training": charts})
