"""Refuse a configuration before a folder is made, data is read or a device is touched."""

import copy
from collections.abc import Hashable
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import nn

from imex_experiments.config.build import refusing
from imex_experiments.config.keys import CHANGED, check_keys
from imex_experiments.config.parts import Parts, build_parts
from imex_experiments.config.trainer import check_own_keys, check_trainer
from imex_experiments.errors import CheckpointError, ConfigError
from imex_experiments.facts import DataModule
from imex_experiments.networks.structure import structure


def preflight(cfg: DictConfig) -> Parts:
    """Check every class, key and type, build all parts, and try them; return the parts.

    Raises ConfigError with key and value for the first thing that cannot work, and
    CheckpointError for `weights` that are not there. No data are read: the batch that is
    tried has the size that the configuration gives.
    """
    check_keys(cfg)
    check_seed(cfg.seed)
    check_own_keys(cfg.trainer)
    check_trainer(cfg.trainer)
    _refuse_missing_callbacks(cfg)
    if cfg.sweep.resume is not None:  # train.py takes the word before Hydra does
        raise ConfigError("sweep.resume: give it without +, as sweep.resume=<sweep>")
    if cfg.weights is not None and not Path(cfg.weights).exists():
        raise CheckpointError(f"weights={cfg.weights}: no such run or file")
    parts = build_parts(cfg)
    try_batch(parts.network, parts.data)
    with refusing("optimizer"):
        optimizer = parts.optimizer(parts.network.parameters())
    with refusing("scheduler"):
        if parts.scheduler:
            parts.scheduler(optimizer, total_steps=100)
    return parts


_passed: set[Hashable] = set()


def try_batch(network: nn.Module, data: DataModule) -> None:
    """Run a batch without values through the network. Raises ConfigError if it refuses.

    A structure of networks that passed is not tried again.
    """
    shape = (data.batch_size, *data.image_shape)
    if (key := (structure(network), shape)) in _passed:
        return
    with refusing("model"):
        shadow = copy.deepcopy(network).to("meta").eval()
        shadow(torch.empty(shape, device="meta"))
    _passed.add(key)


def _refuse_missing_callbacks(cfg: DictConfig) -> None:
    """Raise ConfigError for a setting that has no effect without its callback."""
    needed = {
        "auto_alpha": ("model.alpha=auto", cfg.model.get("alpha") == "auto"),
        "reconfigured": (f"{CHANGED}=true", cfg.resume is not None and cfg[CHANGED]),
    }
    for name, (setting, given) in needed.items():
        if given and not (cfg.get("callbacks") or {}).get(name):
            raise ConfigError(f"callbacks.{name}=null: {setting} needs it")


def check_seed(seed: int) -> None:
    """Raise ConfigError for a seed that NumPy's generator refuses."""
    if not 0 <= seed < 2**32:
        raise ConfigError(f"seed={seed}: expected an integer from 0 to {2**32 - 1}")
