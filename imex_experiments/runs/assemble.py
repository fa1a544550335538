"""The parts of an experiment, built from its configuration."""

import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, open_dict
from pytorch_lightning.callbacks import Checkpoint, ProgressBar
from torch import nn

from imex_experiments.runs.build import TRAINING, build
from imex_experiments.runs.checkpoint_io import VerifiedCheckpointIO
from imex_experiments.runs.errors import ConfigError
from imex_experiments.tasks import Task


def build_network(
    cfg: DictConfig, data: Any, allowed: Sequence[str] = TRAINING
) -> nn.Module:
    """The network, with the channels of its data."""
    channels = {"in_channels": data.in_channels, "out_channels": data.out_channels}
    return build(cfg.model, "model", allowed, **channels)


def build_task(cfg: DictConfig, network: nn.Module, facts: Mapping[str, Any]) -> Task:
    """The task around a network, with optimizer and scheduler."""
    return build(
        cfg.task,
        "task",
        network=network,
        facts=facts,
        optimizer=build(cfg.optimizer, "optimizer"),
        scheduler=build(cfg.get("scheduler"), "scheduler"),
    )


def build_trainer(cfg: DictConfig, instead: pl.Callback) -> pl.Trainer:
    """Build the trainer with the callbacks and the logger that are there, and no others.

    Lightning would put a logger, checkpoints or a progress bar of its own in the place of
    one that is null. `instead` is taken where no callback of its class is configured.
    """
    nodes = cfg.get("callbacks") or {}
    callbacks = [build(node, f"callbacks.{key}") for key, node in nodes.items()]
    callbacks = [callback for callback in callbacks if callback is not None]

    def has(kind: type) -> bool:
        return any(isinstance(callback, kind) for callback in callbacks)

    if not has(type(instead)):
        callbacks.append(instead)
    return build(
        lightning(cfg.trainer),
        "trainer",
        callbacks=callbacks,
        logger=build(cfg.get("logger"), "logger") or False,
        plugins=[VerifiedCheckpointIO()],
        enable_checkpointing=has(Checkpoint),
        enable_progress_bar=has(ProgressBar),
    )


OURS = ("compile", "channels_last", "tf32", "graphs")
"""What the trainer's node says about the network, not to Lightning."""


def lightning(trainer: DictConfig) -> DictConfig:
    """The trainer's node without what is ours."""
    theirs = trainer.copy()
    with open_dict(theirs):
        for key in OURS:
            theirs.pop(key, None)
    return theirs


def speed_up(network: nn.Module, trainer: DictConfig) -> None:
    """Layout, precision and compilation as `check_ours` has accepted them."""
    if trainer.get("channels_last", False):
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if trainer.get("tf32", False):
        torch.set_float32_matmul_precision("high")
    if wanted := trainer.get("compile", False):  # in place: names in a checkpoint stay
        network.compile(mode=None if wanted is True else wanted)


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
