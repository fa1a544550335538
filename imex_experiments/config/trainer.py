"""The trainer's node: what is ours in it, what is refused, and a trainer without traces."""

import os
import re
import shutil
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf, open_dict

from imex_experiments.config.build import build
from imex_experiments.errors import ConfigError

OURS = ("compile", "channels_last", "tf32", "graphs")
"""What the trainer's node says about the network, not to Lightning."""


def lightning(trainer: DictConfig) -> DictConfig:
    """The trainer's node without what is ours."""
    theirs = trainer.copy()
    with open_dict(theirs):
        for key in OURS:
            theirs.pop(key, None)
    return theirs


def check_ours(trainer: DictConfig) -> None:
    """ConfigError for a value that is not known, or if nothing can compile."""
    for key in OURS:
        wanted = trainer.get(key, False)
        words = ("reduce-overhead",) if key == "compile" else ()
        if not isinstance(wanted, bool) and wanted not in words:
            expected = " or ".join(("true", "false", *words))
            raise ConfigError(f"trainer.{key}={wanted}: expected {expected}")
    if trainer.get("graphs", False):
        _check_graphs(trainer)
    compiler = os.environ.get("CXX", "g++")
    missing = not torch.cuda.is_available() and shutil.which(compiler) is None
    if trainer.get("compile", False) and missing:
        raise ConfigError(
            f"trainer.compile={trainer.compile}: no C++ compiler {compiler!r} found; "
            "install one, name it in CXX, or leave trainer.compile out"
        )


def _check_graphs(trainer: DictConfig) -> None:
    if not torch.cuda.is_available():
        raise ConfigError("trainer.graphs=true: CUDA graphs need a CUDA device")
    if trainer.devices != 1:
        raise ConfigError("trainer.graphs=true: give trainer.devices=1")
    if trainer.get("compile", False):
        raise ConfigError(
            "trainer.graphs=true: compiled networks have graphs of their own; "
            "give trainer.compile=reduce-overhead alone"
        )


def quiet_trainer(trainer: DictConfig, **options: Any) -> pl.Trainer:
    """A trainer as configured, but on one device, and one that leaves no traces."""
    quiet: dict[str, Any] = {
        "devices": 1,
        "num_nodes": 1,
        "strategy": "auto",
        "profiler": None,
        "logger": False,
        "callbacks": None,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return build(lightning(trainer), "trainer", **{**quiet, **options})


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
