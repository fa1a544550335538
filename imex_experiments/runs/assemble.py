"""The parts of an experiment, built from its configuration."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig
from torch import nn

from imex_experiments.runs.build import TRAINING, build
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
        cfg.trainer,
        "trainer",
        callbacks=[callback for callback in callbacks if callback is not None],
        logger=build(cfg.logger, "logger"),
    )
