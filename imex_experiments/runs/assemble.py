"""The parts of an experiment, built from its configuration."""

import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, open_dict
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
        scheduler=build(cfg.scheduler, "scheduler"),
    )


def build_trainer(cfg: DictConfig) -> pl.Trainer:
    """The trainer with all callbacks that are not null, and the logger."""
    callbacks = [build(node, f"callbacks.{key}") for key, node in cfg.callbacks.items()]
    return build(
        lightning(cfg.trainer),
        "trainer",
        callbacks=[callback for callback in callbacks if callback is not None],
        logger=build(cfg.logger, "logger"),
        plugins=[VerifiedCheckpointIO()],
    )


def lightning(trainer: DictConfig) -> DictConfig:
    """The trainer's node without `compile`, which is ours and not Lightning's."""
    theirs = trainer.copy()
    with open_dict(theirs):
        theirs.pop("compile", None)
    return theirs


def wants_compile(cfg: DictConfig) -> bool:
    """trainer.compile; ConfigError if it is no bool or there is nothing to compile with."""
    wanted = cfg.trainer.get("compile", False)
    if not isinstance(wanted, bool):
        raise ConfigError(f"trainer.compile={wanted}: expected true or false")
    compiler = os.environ.get("CXX", "g++")
    if wanted and not torch.cuda.is_available() and shutil.which(compiler) is None:
        raise ConfigError(
            f"trainer.compile=true: no C++ compiler {compiler!r} found; install one, "
            "name it in CXX, or leave trainer.compile out"
        )
    return wanted
