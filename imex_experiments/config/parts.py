"""Build the network and the task of a configuration."""

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig
from torch import nn

from imex_experiments.config.build import TRAINING, build
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
