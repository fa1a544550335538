"""Refuse settings of the trainer with which a run could not come to its end."""

import re
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from imex_experiments.runs.errors import ConfigError
from imex_experiments.runs.evaluation import quiet_trainer

SOUND: dict[str, tuple[Callable[[Any], bool], str]] = {
    "max_epochs": (
        lambda n: isinstance(n, int) and n >= 1,
        "an integer >= 1; max_steps and max_time may end a run before",
    ),
    "max_steps": (lambda n: n == -1 or n >= 1, "-1, for no limit, or an integer >= 1"),
    "limit_train_batches": (lambda n: n is None or n > 0, "null or more than 0"),
    "limit_val_batches": (
        lambda n: n is None or n > 0,
        "null or more than 0: the kept checkpoint is the best on validation",
    ),
    "check_val_every_n_epoch": (lambda n: n is None or n >= 1, "an integer >= 1"),
    "precision": (
        lambda name: not re.match("transformer-engine|(bf)?16-true", str(name)),
        "32-true, 64-true, bf16-mixed or 16-mixed: weights are kept in full precision",
    ),
    "accumulate_grad_batches": (lambda n: n >= 1, "an integer >= 1"),
}
"""What each value has to fulfil, and in words."""


_passed: set[str] = set()


def check_trainer(trainer: DictConfig) -> None:
    """ConfigError for what Lightning refuses, or what leaves nothing to train or to keep.

    No device is touched: a sweep may be planned on a machine without those of its jobs. It
    is often the same for all its points, so one that passed is remembered.
    """
    nowhere = trainer.copy()
    with open_dict(nowhere):
        nowhere.default_root_dir = None  # known to Hydra when it has made the folder
    nowhere._set_parent(trainer._get_parent())  # interpolations of other keys
    if (text := repr(OmegaConf.to_container(nowhere, resolve=True))) in _passed:
        return
    profiler = trainer.get("profiler")
    quiet_trainer(nowhere, accelerator="cpu", precision="32-true", profiler=profiler)
    for key, (fulfils, words) in SOUND.items():
        if key in trainer and not fulfils(trainer[key]):
            raise ConfigError(f"trainer.{key}={trainer[key]}: expected {words}")
    _passed.add(text)
