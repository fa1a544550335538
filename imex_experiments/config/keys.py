"""Refuse keys of a configuration that no code reads, from YAML or from overrides."""

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
from hydra.conf import HydraConf
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError
from pytorch_lightning.loggers import Logger
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from imex_experiments.config.allow import allowed_by, check_packages
from imex_experiments.config.build import Part, check, check_arguments, locate
from imex_experiments.config.interpolations import check_unfolding, dotted
from imex_experiments.config.trainer import OWN_KEYS
from imex_experiments.errors import ConfigError, nearest
from imex_experiments.facts import DataModule
from imex_experiments.tasks import Task

PARTS = {
    "data": Part(DataModule),
    "model": Part(nn.Module, given=("in_channels", "out_channels")),
    "task": Part(Task, given=("network", "facts", "optimizer", "scheduler")),
    "optimizer": Part(Optimizer, given=("params",), partial=True),
    "scheduler": Part(LRScheduler, given=("optimizer", "total_steps"), partial=True),
    "trainer": Part(
        pl.Trainer,
        given=(
            *("callbacks", "logger", "plugins"),
            *("enable_checkpointing", "enable_progress_bar"),  # set by the callbacks
            *("limit_predict_batches", "model_registry", "enable_autolog_hparams"),
            *("reload_dataloaders_every_n_epochs", "barebones"),
        ),
        more=OWN_KEYS,
    ),
}
"""Key -> the requirements for its node."""

NAMED = {
    "callbacks": Part(pl.Callback),
    "logger": Part(Logger, given=("experiment", "log_model")),
}
"""Key -> the requirements for each of the named nodes below it, any of which may be null."""

CHANGED = "resume_changed"
"""The key that allows a resumed run another configuration than before."""


@dataclass
class Experiment:
    """The keys of conf/train.yaml. A key with a default may be removed (`~logger`)."""

    seed: int
    resume: Any
    resume_changed: bool
    check: bool
    weights: str | None
    freeze: list[str]
    test: bool
    allow: Any
    sweep: Mapping[str, Any]
    run_dir: str
    data: Mapping[str, Any]
    model: Mapping[str, Any]
    task: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    trainer: Mapping[str, Any]
    scheduler: Mapping[str, Any] | None = None
    callbacks: Mapping[str, Any] | None = None
    logger: Mapping[str, Any] | None = None


@dataclass
class SweepKeys:
    """Name the keys of `sweep` in conf/train.yaml."""

    resume: Any


def check_keys(cfg: DictConfig) -> None:
    """Check every key of a composed configuration, and the node `hydra` if it has one.

    Raises ConfigError with the nearest name for the first key that no code reads, and with
    key and value for a class, a type or an interpolation that cannot work.
    """
    if "hydra" in cfg:
        _check_hydra(cfg.hydra)
    plain: dict[str, Any] = {
        str(key): OmegaConf.to_container(node) if OmegaConf.is_config(node) else node
        for key, node in cfg.items_ex(resolve=False)
        if key != "hydra"
    }
    check_arguments(Experiment, plain, "")
    check_arguments(SweepKeys, plain["sweep"], "sweep")
    check_packages(plain["allow"])
    allowed = allowed_by(plain)
    for key, part in PARTS.items():
        check(cfg.get(key), key, part, allowed)
    for group in NAMED:
        for name, value in (plain.get(group) or {}).items():
            _check_named(group, name, value, allowed)
    _check_references(dotted(plain))
    check_unfolding(plain)


def _refuse_absent(path: str, key: str, allowed: Sequence[str]) -> None:
    """Raise ConfigError, with the command that installs it, for a logger without its package.

    The module of the logger has a RequirementCache for the package. Lightning checks it
    when the logger is built, which is after the run folder is made.
    """
    module = inspect.getmodule(locate(path, key, allowed))
    found = [
        requirement
        for requirement in vars(module).values()
        if type(requirement).__name__ == "RequirementCache"
    ]
    if found and not any(found):
        raise ConfigError(f"{key}={path}: {found[0]}")


def _check_named(group: str, name: str, value: Any, allowed: Sequence[str]) -> None:
    key = f"{group}.{name}"
    if isinstance(value, dict) and "_target_" in value:
        check(value, key, NAMED[group], allowed)
        if group == "logger":
            _refuse_absent(value["_target_"], f"{key}._target_", allowed)
    elif name not in (known := _known_names(group)):
        raise ConfigError(f"{key}: unknown key, {nearest(name, known)}")
    elif value is not None:
        raise ConfigError(f"{key}={value}: expected null or a node with _target_")


def _known_names(group: str) -> set[str]:
    """Return the names of the nodes in all files of a group."""
    loader: Any = GlobalHydra.instance().config_loader()
    files = [f"{group}/{name}" for name in loader.get_group_options(group)]
    return {
        str(name)
        for file in files
        for name in loader.repository.load_config(file).config
    }


REFERENCE = re.compile(r"\$\{(\w[\w.]*)\}")


def _check_references(flat: Mapping[str, object]) -> None:
    """Raise ConfigError for an interpolation of a key that was removed."""
    for key, value in flat.items():
        for name in REFERENCE.findall(str(value)):
            if not any(known == name or known.startswith(f"{name}.") for known in flat):
                raise ConfigError(
                    f"{name}: missing, {key} needs it; give it as {name}=<value>"
                )


LOGGING = re.compile(
    r"version|incremental|disable_existing_loggers|(filters|handlers)\..+"
    r"|formatters\.[^.]+\.(format|datefmt|style|validate|class|\(\)|defaults\..+)"
    r"|(root|loggers\..+)\.(level|handlers|filters|propagate)"
)
"""Keys that `logging.config` reads; it ignores all others."""

LOGGING_NAMES = (
    *("version", "formatters", "filters", "handlers", "loggers", "root", "incremental"),
    *("disable_existing_loggers", "level", "propagate", "format", "datefmt", "class"),
)


_passed: set[str] = set()


def _check_hydra(node: DictConfig) -> None:
    """Check the keys of the node `hydra`, to which `+hydra.<key>` adds any key.

    A node that passed is not checked again: all points of a sweep have the same.
    """
    plain: Any = OmegaConf.to_container(node, resolve=False)
    if (text := repr(plain)) in _passed:
        return
    known = {key: value for key, value in plain.items() if key != "env" or value}
    try:
        OmegaConf.merge(OmegaConf.structured(HydraConf), known)
    except ConfigKeyError as error:
        parent: Any = error.parent_node
        raise ConfigError(
            f"hydra.{error.full_key}: unknown key, {nearest(str(error.key), parent)}"
        ) from error
    for group in ("job_logging", "hydra_logging"):
        for key in dotted(plain[group] or {}):
            if key and not LOGGING.fullmatch(key):
                hint = nearest(key.rpartition(".")[2], LOGGING_NAMES)
                raise ConfigError(f"hydra.{group}.{key}: unknown key, {hint}")
    for name, value in (plain["callbacks"] or {}).items():
        if not (isinstance(value, dict) and "_target_" in value):
            raise ConfigError(f"hydra.callbacks.{name}: expected a node with _target_")
        if str(value["_target_"]).startswith("imex_experiments."):
            check(node.callbacks[name], f"hydra.callbacks.{name}")
    for group in ("launcher", "sweeper"):
        check(node[group], f"hydra.{group}", allowed=("hydra", "hydra_plugins"))
    _passed.add(text)
