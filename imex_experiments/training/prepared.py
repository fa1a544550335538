"""Check and prepare a run before its folder is made: bad data leave no folder behind."""

import logging
from logging.handlers import BufferingHandler
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from torch import nn

from imex_experiments.config.allow import at_keyboard
from imex_experiments.config.arguments import HOOKS
from imex_experiments.config.parts import Parts, build_task, set_up
from imex_experiments.config.preflight import preflight, try_batch
from imex_experiments.errors import ConfigError, DataError
from imex_experiments.facts import DataModule, Facts
from imex_experiments.process.rank import is_first_on_machine
from imex_experiments.runs.folder import claim, make_private, require_room
from imex_experiments.runs.resume import is_finished, refuse_changes, refuse_unfit
from imex_experiments.runs.transfer import start_from
from imex_experiments.tasks import Task

MOST_RECORDS = 1000

_waiting: list[tuple[DataModule, Task, list[logging.LogRecord]]] = []
"""Data and task between `prepare` and `prepared`, and the log records kept meanwhile."""


def start(cfg: DictConfig) -> None:
    """Check a run, prepare it, and claim its folder.

    Ends with SystemExit(0) for a run that is finished, and after the checks for
    `check=true`. Raises the errors of the checks; until they pass nothing is written.
    """
    parts = preflight(cfg)
    if cfg.resume is not None:
        refuse_changes(cfg)
        if is_finished(cfg):
            print(f"resume={cfg.resume}: this run is finished, nothing to do")
            raise SystemExit(0)
    stop_if_only_checking(cfg)
    HydraConfig.instance().set_config(cfg)  # its name may hold the choice of model
    weights = sum(weight.numel() for weight in parts.network.parameters())
    place = Path(cfg.hydra.run.dir), "hydra.run.dir", weights
    require_room(*place)
    prepare(cfg, parts)
    make_private(*place)
    if cfg.resume is None:
        claim(place[0], at_keyboard(cfg, cfg.hydra))


def stop_if_only_checking(cfg: DictConfig) -> None:
    """End with SystemExit(0) for `check=true`."""
    if cfg.check:
        print("check=true: this can be run")
        raise SystemExit(0)


def prepare(cfg: DictConfig, parts: Parts) -> None:
    """Prepare and set up the data, build the task, and keep both for `prepared`.

    Log records are kept too, because the log file of the run does not exist yet. Raises
    DataError for data that cannot be used or that are not as the data module states,
    ConfigError for images that the network refuses, for a resumed run the errors of
    `refuse_unfit`, and for `weights` those of `start_from`.
    """
    root, kept = logging.getLogger(), BufferingHandler(MOST_RECORDS)
    level = root.level
    root.addHandler(kept)
    root.setLevel(logging.INFO)
    try:
        set_up(cfg, parts, prepare=is_first_on_machine())
        try_batch(parts.network, parts.data)
        task = build_task(cfg, parts)
        check_samples(parts.data, task.facts)
        if cfg.resume is not None:
            refuse_unfit(cfg, task)
        elif cfg.weights is not None:
            start_from(task, cfg.weights)
    finally:
        root.removeHandler(kept)
        root.setLevel(level)
    _waiting[:] = [(parts.data, task, kept.buffer)]


def check_samples(data: DataModule, facts: Facts) -> None:
    """Raise DataError unless a sample has the type and channels that the facts state."""
    inputs, *_ = data.samples("train", 1)
    dtype, channels = facts["dtype"], facts["in_channels"]
    found = str(inputs.dtype).removeprefix("torch.")
    if found != dtype or inputs.ndim != 4 or inputs.shape[1] != channels:
        raise DataError(
            f"data: {type(data).__name__} gives {found} of shape {tuple(inputs.shape)}, but "
            f"its facts state {dtype} of shape (N, {channels}, H, W)"
        )


def prepared() -> tuple[DataModule, nn.Module, Task]:
    """Return data, network and task of `prepare`, once, and emit its log records.

    Raises ConfigError if nothing was prepared.
    """
    if not _waiting:
        raise ConfigError(f"{HOOKS}: missing, it checks and prepares a run; keep it")
    data, task, records = _waiting.pop()
    for record in records:
        logging.getLogger(record.name).handle(record)
    return data, task.network, task
