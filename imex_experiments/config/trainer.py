"""Check the node `trainer`, and build a trainer that writes no files."""

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

OWN_KEYS = ("compile", "channels_last", "tf32", "graphs", "sync_batchnorm")
"""Keys of the node that this package reads; Lightning knows none, or not all values."""

OTHER_VALUES = {"compile": "reduce-overhead", "sync_batchnorm": "auto"}
"""Key of this package -> its value beside true and false."""


def lightning(trainer: DictConfig) -> DictConfig:
    """Return the node without the keys of this package.

    `sync_batchnorm=auto` is true on GPUs: batch norms on CPUs cannot be synchronised.
    """
    node = trainer.copy()
    with open_dict(node):
        own = {key: node.pop(key, False) for key in OWN_KEYS}
        node.sync_batchnorm = own["sync_batchnorm"]
        if own["sync_batchnorm"] == "auto":
            node.sync_batchnorm = _on_gpus(node)
    return node


def _on_gpus(trainer: DictConfig) -> bool:
    accelerator = trainer.get("accelerator", "auto")
    automatic = accelerator == "auto" and torch.cuda.is_available()
    return automatic or accelerator in ("gpu", "cuda")


def check_own_keys(trainer: DictConfig) -> None:
    """Check the keys of this package.

    Raises ConfigError for an unknown value, and for `compile` without a compiler.
    """
    for key in OWN_KEYS:
        wanted, other = trainer.get(key, False), OTHER_VALUES.get(key)
        if not isinstance(wanted, bool) and (other is None or wanted != other):
            expected = " or ".join(filter(None, ("true", "false", other)))
            raise ConfigError(f"trainer.{key}={wanted}: expected {expected}")
    if trainer.get("graphs", False):
        _check_graphs(trainer)
    _check_processes(trainer)
    if trainer.get("sync_batchnorm", False) is True and not _on_gpus(trainer):
        raise ConfigError(
            "trainer.sync_batchnorm=true: GPUs have it, give auto or false"
        )
    compiler = os.environ.get("CXX", "g++")
    missing = not torch.cuda.is_available() and shutil.which(compiler) is None
    if trainer.get("compile", False) and missing:
        raise ConfigError(
            f"trainer.compile={trainer.compile}: no C++ compiler {compiler!r} found; "
            "install one, name it in CXX, or leave trainer.compile out"
        )


def _check_processes(trainer: DictConfig) -> None:
    """Raise ConfigError unless the trainer has as many devices as torchrun has processes."""
    devices, nodes = trainer.get("devices", 1), trainer.get("num_nodes", 1)
    started = os.environ.get("WORLD_SIZE")
    if "TORCHELASTIC_RUN_ID" not in os.environ or not isinstance(devices, int):
        return
    if started != str(devices * nodes):
        raise ConfigError(
            f"trainer.devices={devices} trainer.num_nodes={nodes}: torchrun has started "
            f"{started} processes; give trainer=ddp, trainer.devices=<those of a machine> "
            "and trainer.num_nodes=<machines>"
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
    """Build the trainer for one device, without logger, callbacks and checkpoints."""
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


CONDITIONS: dict[str, tuple[Callable[[Any], bool], str]] = {
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
"""Key -> the condition on its value, and its text for errors."""

_passed: set[str] = set()


def check_trainer(trainer: DictConfig) -> None:
    """Raise ConfigError for values that Lightning refuses, or that train or keep nothing.

    No device is touched: a sweep may be planned on a machine without the devices of its
    jobs. A node that passed is not checked again: most points of a sweep have the same.
    """
    pathless = trainer.copy()
    with open_dict(pathless):
        pathless.default_root_dir = None  # Hydra knows it once the folder is made
    pathless._set_parent(trainer._get_parent())  # to resolve interpolations
    if (text := repr(OmegaConf.to_container(pathless, resolve=True))) in _passed:
        return
    profiler = trainer.get("profiler")
    quiet_trainer(pathless, accelerator="cpu", precision="32-true", profiler=profiler)
    for key, (fulfils, condition) in CONDITIONS.items():
        if key in trainer and not fulfils(trainer[key]):
            raise ConfigError(f"trainer.{key}={trainer[key]}: expected {condition}")
    _refuse_limits_of_overfitting(trainer)
    _passed.add(text)


def _refuse_limits_of_overfitting(trainer: DictConfig) -> None:
    """Raise ConfigError for limits that Lightning ignores beside `overfit_batches`."""
    for key in ("limit_train_batches", "limit_val_batches"):
        if trainer.get("overfit_batches", 0) and trainer.get(key) is not None:
            raise ConfigError(
                f"trainer.{key}={trainer[key]}: trainer.overfit_batches="
                f"{trainer.overfit_batches} decides; give {key}=null"
            )
