"""Set up the data of a run before its folder is made: a defect in them leaves none."""

import logging
from logging.handlers import BufferingHandler
from typing import Any

from omegaconf import DictConfig

from imex_experiments.runs.build import build
from imex_experiments.runs.command import HOOKS
from imex_experiments.runs.errors import ConfigError

MOST_RECORDS = 1000

_waiting: list[tuple[Any, list[logging.LogRecord]]] = []
"""The data between `prepare_data` and `prepared_data`, and what they logged."""


def prepare_data(cfg: DictConfig) -> Any:
    """Return the configured data module, set up, and keep it for `prepared_data`.

    The log of the run is not there yet, so that messages are kept too. DataError for
    data that cannot be used.
    """
    root, kept = logging.getLogger(), BufferingHandler(MOST_RECORDS)
    level = root.level
    root.addHandler(kept)
    root.setLevel(logging.INFO)
    try:
        data = build(cfg.data, "data")
        data.setup()
    finally:
        root.removeHandler(kept)
        root.setLevel(level)
    _waiting[:] = [(data, kept.buffer)]
    return data


def prepared_data() -> Any:
    """Return what `prepare_data` has set up, once, and log what it had to say."""
    if not _waiting:
        raise ConfigError(f"{HOOKS}: missing, it checks and prepares a run; keep it")
    data, records = _waiting.pop()
    for record in records:
        logging.getLogger(record.name).handle(record)
    return data
