"""Train from Python: in a notebook, or in a program of one's own."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from logging.config import DictConfigurator
from pathlib import Path
from typing import Any

import pandas as pd
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from imex_experiments.commands import train as command
from imex_experiments.config.allow import allowed_at_keyboard
from imex_experiments.config.arguments import keep_hooks, rewritten
from imex_experiments.config.overrides import override, single_value
from imex_experiments.errors import ConfigError
from imex_experiments.installed import CONF, TRAIN, command_line
from imex_experiments.process.command import hush_lightning, reported
from imex_experiments.runs.layout import FIGURES
from imex_experiments.runs.load import load_run, read_history, read_metrics
from imex_experiments.runs.resume import resumed_arguments
from imex_experiments.sweeps.jobs import job
from imex_experiments.tasks import Task


@dataclass(frozen=True)
class TrainedRun:
    """A finished run; each part is read from its folder on first use."""

    folder: Path
    allow: Sequence[str] = ()
    """Packages of the user's own, whose classes the run may name."""

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The content of metrics.json: `test/miou`, `parameters`, `train_seconds`, ..."""
        return read_metrics(self.folder)

    @cached_property
    def history(self) -> pd.DataFrame:
        """The content of metrics.csv: a row per validation, a column per metric."""
        return pd.DataFrame(read_history(self.folder)).map(_number)

    @cached_property
    def figures(self) -> dict[str, Path]:
        """The pictures of the run by name, as PNG files."""
        return {
            path.stem: path for path in sorted((self.folder / FIGURES).glob("*.png"))
        }

    @cached_property
    def task(self) -> Task:
        """The trained task of the kept checkpoint; `task.predict(images)` applies it."""
        return load_run(self.folder, allow=self.allow)


def _number(text: str) -> int | float:
    """Return a cell of metrics.csv, NaN if it is empty.

    float() gives back what was written; pandas 2 is one digit off.
    """
    return int(text) if text.isdecimal() else float(text or "nan")


def train(*overrides: str, **settings: Any) -> TrainedRun:
    """Train one network in this process, as the command does; return the finished run.

    `train("model=resnet", data__train=64, logger=None)`: overrides are those of the
    command line. In the name of a setting, `__` stands for a dot; `**{"model.h": 0.5}` is
    the same as `model__h=0.5`. A value is a string, a number, a path, True, False, None, or
    a list or dictionary of these. Raises the errors of `imex_experiments.errors`, and
    KeyboardInterrupt for Ctrl-C, after a checkpoint. Logging, signals and sys.argv are
    those of the caller again when it ends.
    """
    given = [override(key.replace("__", "."), value) for key, value in settings.items()]
    words = rewritten(resumed_arguments([*overrides, *given]))
    keep_hooks(words)
    _refuse_sweeps(words)
    failure: BaseException | None = None
    with warnings.catch_warnings(), _hydra_of_caller():
        hush_lightning()
        try:
            with initialize_config_dir(str(CONF), "train", version_base="1.3"):
                _refuse_several_devices(compose("train", words))
                return TrainedRun(_run(words), allowed_at_keyboard(words))
        except (Exception, SystemExit) as caught:
            failure = reported(caught)
    if isinstance(failure, SystemExit) and not failure.code:  # there is nothing to do
        return _finished(words)
    raise failure  # here, so that a traceback has one error


def _run(words: list[str]) -> Path:
    """Run Hydra's application on overrides; return the folder of the run."""
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    body = job(str(TRAIN))(_logging_body)
    done = hydra.run("train", body, words, with_log_configuration=False)
    assert done.hydra_cfg is not None
    return Path(done.hydra_cfg.hydra.runtime.output_dir)


def _logging_body(cfg: DictConfig) -> float:
    with _logging_to_run():
        return command.train(cfg)


@contextmanager
def _logging_to_run() -> Iterator[None]:
    """Add the handlers of the configuration to the root logger within the body.

    Hydra's own way would close those of the caller.
    """
    plain: Any = OmegaConf.to_container(HydraConfig.get().job_logging, resolve=True)
    maker: Any = DictConfigurator(plain)
    for name, form in maker.config["formatters"].items():
        maker.config["formatters"][name] = maker.configure_formatter(form)
    made = [
        maker.configure_handler(maker.config["handlers"][name])
        for name in maker.config["root"]["handlers"]
    ]
    root = logging.getLogger()
    level = root.level
    for handler in made:
        root.addHandler(handler)
    root.setLevel(maker.config["root"]["level"])
    try:
        yield
    finally:
        root.setLevel(level)
        for handler in made:
            root.removeHandler(handler)
            handler.close()


@contextmanager
def _hydra_of_caller() -> Iterator[None]:
    """Restore the configuration of the caller's own Hydra application, if any."""
    before = HydraConfig.instance().cfg
    try:
        yield
    finally:
        HydraConfig.instance().cfg = before


def _refuse_sweeps(words: list[str]) -> None:
    for word in words:
        if word.lstrip("+").startswith(("hydra.mode=", "sweep.resume=")):
            raise ConfigError(
                f"{word}: a call trains one network; call it in a loop, or give the sweep "
                f"to the command, {command_line('train')} -m"
            )


def _refuse_several_devices(cfg: DictConfig) -> None:
    devices = cfg.trainer.get("devices", 1)
    if devices != 1 or cfg.trainer.get("num_nodes", 1) != 1:
        raise ConfigError(
            f"trainer.devices={devices}: this process trains on one device; several "
            "devices have a process each, which the command starts"
        )


def _finished(words: list[str]) -> TrainedRun:
    """Return the run that is resumed although it is finished."""
    folders = [word for word in words if word.startswith("hydra.run.dir=")]
    if not any(word.startswith("resume=") for word in words):
        raise ConfigError("check=true: this can be run; without it, it is")
    run = Path(single_value(folders[-1]))
    return TrainedRun(run, allowed_at_keyboard(words))
