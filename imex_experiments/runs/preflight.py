"""Refuse a configuration before a folder is made, data is read or a device is touched."""

import copy
import shutil
import tempfile
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from imex_experiments.networks.structure import structure
from imex_experiments.runs.assemble import build_network, build_task, check_ours
from imex_experiments.runs.build import build, refusing
from imex_experiments.runs.errors import ConfigError, StorageError
from imex_experiments.runs.keys import check_keys
from imex_experiments.runs.resume import CHANGED, refuse_changes, refuse_unfit
from imex_experiments.runs.trainable import check_trainer

BYTES = 4 * 3 * 4
"""Per weight: last, previous, best and the next checkpoint of it and of two moments."""

LOGS = 16 * 2**20
"""Bytes for everything else in a run folder."""


def preflight(cfg: DictConfig) -> tuple[nn.Module, Any]:
    """Check every class, key and type; build data module, network, optimizer; try a batch.

    Return the network and the data module. ConfigError with key and value for the first
    thing that cannot work. No data are read, so that the batch has the size that they
    should have.
    """
    check_keys(cfg)
    check_seed(cfg.seed)
    refuse_changes(cfg)
    check_ours(cfg.trainer)
    check_trainer(cfg.trainer)
    _refuse_missing_callbacks(cfg)
    data = build(cfg.data, "data")
    network = build_network(cfg, data)
    _try_batch(network, data)
    with refusing("optimizer"):
        optimizer = build(cfg.optimizer, "optimizer")(network.parameters())
    with refusing("scheduler"):
        if make_scheduler := build(cfg.get("scheduler"), "scheduler"):
            make_scheduler(optimizer, total_steps=100)
    return network, data


def check_with_data(cfg: DictConfig, data: Any) -> None:
    """Refuse what data that are set up, or the checkpoint of a resumed run, do not suit.

    ConfigError for images that the network does not take; see also `refuse_unfit`.
    """
    network = build_network(cfg, data)
    _try_batch(network, data)
    if cfg.resume is not None:
        refuse_unfit(cfg, build_task(cfg, network, data.facts))


_passed: set[Hashable] = set()


def _try_batch(network: nn.Module, data: Any) -> None:
    """Run the shapes of a batch through the network; ConfigError if it refuses them.

    Networks of one structure pass or fail together, so one that passed is remembered.
    """
    shape = (data.batch_size, *data.image_shape)
    if (key := (structure(network), shape)) in _passed:
        return
    with refusing("model"):
        shadow = copy.deepcopy(network).to("meta").eval()
        shadow(torch.empty(shape, device="meta"))
    _passed.add(key)


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


def make_private(folder: Path, key: str, weights: int = 0) -> None:
    """Make a run folder for this user alone, once it is known that a run has room there.

    StorageError if nothing can be written there, or too little.
    """
    require_room(folder, key, weights)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def require_room(folder: Path, key: str, weights: int = 0) -> None:
    """StorageError if nothing can be written where a folder is to be, or too little."""
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    try:
        with tempfile.TemporaryFile(dir=existing):
            free, needed = shutil.disk_usage(existing).free, BYTES * weights + LOGS
    except OSError as error:
        raise StorageError(
            f"{key}={folder}: {existing} cannot be written ({error.strerror}); "
            "choose another folder"
        ) from error
    if free < needed:
        raise StorageError(
            f"{key}={folder}: a run needs {needed / 2**20:.0f} MiB, "
            f"{free / 2**20:.0f} MiB are free; free some space or choose another folder"
        )
