"""Refuse a configuration before a folder is made, data is read or a device is touched."""

import copy
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from imex_experiments.config.build import build, refusing
from imex_experiments.config.keys import CHANGED, check_keys
from imex_experiments.config.parts import build_network
from imex_experiments.config.trainer import check_ours, check_trainer
from imex_experiments.errors import ConfigError


def preflight(cfg: DictConfig) -> int:
    """Check every class, key and type; build data module, network, optimizer; try a batch.

    Return the number of weights. ConfigError with key and value for the first thing that
    cannot work. No data are read, so that the batch has the size that they should have.
    """
    check_keys(cfg)
    check_seed(cfg.seed)
    check_ours(cfg.trainer)
    check_trainer(cfg.trainer)
    _refuse_missing_callbacks(cfg)
    data = build(cfg.data, "data")
    network = build_network(cfg, data)
    try_batch(network, data)
    with refusing("optimizer"):
        optimizer = build(cfg.optimizer, "optimizer")(network.parameters())
    with refusing("scheduler"):
        if make_scheduler := build(cfg.get("scheduler"), "scheduler"):
            make_scheduler(optimizer, total_steps=100)
    return sum(parameter.numel() for parameter in network.parameters())


def try_batch(network: nn.Module, data: Any) -> None:
    """Run the shapes of a batch through the network; ConfigError if it refuses them."""
    with refusing("model"):
        shadow = copy.deepcopy(network).to("meta").eval()
        shadow(torch.empty(data.batch_size, *data.image_shape, device="meta"))


def _refuse_missing_callbacks(cfg: DictConfig) -> None:
    """ConfigError for a setting that would have no effect without a callback."""
    needed = {
        "auto_alpha": ("model.alpha=auto", cfg.model.get("alpha") == "auto"),
        "reconfigured": (f"{CHANGED}=true", cfg.resume is not None and cfg[CHANGED]),
    }
    for name, (setting, given) in needed.items():
        if given and not (cfg.get("callbacks") or {}).get(name):
            raise ConfigError(f"callbacks.{name}=null: {setting} needs it")


def check_seed(seed: int) -> None:
    """ConfigError for a seed that NumPy's generator does not take."""
    if not 0 <= seed < 2**32:
        raise ConfigError(f"seed={seed}: expected an integer from 0 to {2**32 - 1}")
