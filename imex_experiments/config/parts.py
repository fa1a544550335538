"""Build the parts of an experiment from its configuration."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig
from torch import nn

from imex_experiments.config.allow import allowed_by
from imex_experiments.config.build import TRAINING, build, refusing
from imex_experiments.errors import ConfigError
from imex_experiments.facts import DataModule
from imex_experiments.tasks import Task, freeze


@dataclass
class Parts:
    """The objects that one configuration is built into.

    `optimizer` takes the weights, `scheduler` the optimizer and the number of steps.
    """

    data: DataModule
    network: nn.Module
    optimizer: Callable[..., Any]
    scheduler: Callable[..., Any] | None


def build_parts(cfg: DictConfig) -> Parts:
    """Build all parts; the weights depend on the seed alone. Raises as `build` does."""
    data = build_data(cfg)
    return Parts(
        data,
        build_seeded_network(cfg, data),
        build(cfg.optimizer, "optimizer", allowed_by(cfg)),
        build(cfg.get("scheduler"), "scheduler", allowed_by(cfg)),
    )


def set_up(cfg: DictConfig, parts: Parts, prepare: bool = True) -> None:
    """Set up the data, and the network anew if their files have other channels."""

    def channels() -> tuple[int, int]:
        return parts.data.in_channels, parts.data.out_channels

    expected = channels()
    if prepare:
        parts.data.prepare_data()
    parts.data.setup()
    if channels() != expected:
        parts.network = build_seeded_network(cfg, parts.data)


def build_data(cfg: DictConfig, base: Sequence[str] = TRAINING) -> DataModule:
    """Build the data module. Raises ConfigError if it lacks an attribute of all of them.

    Its classes are of the packages `base`, and of those that the configuration allows.
    """
    data: DataModule = build(cfg.data, "data", allowed_by(cfg, base))
    for name in ("batch_size", "in_channels", "out_channels"):
        if not hasattr(data, name):
            raise ConfigError(
                f"data: {type(data).__name__} has no {name}, which every DataModule has"
            )
    return data


def build_seeded_network(cfg: DictConfig, data: DataModule) -> nn.Module:
    """Build the network, with initial weights drawn from `cfg.seed`, and freeze some."""
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    network = build_network(cfg, data.in_channels, data.out_channels)
    with refusing("freeze"):
        freeze(network, cfg.freeze)
    return network


def build_network(
    cfg: DictConfig,
    in_channels: int,
    out_channels: int,
    base: Sequence[str] = TRAINING,
) -> nn.Module:
    """Build the network with the numbers of channels of its data, as `build_data`."""
    channels = {"in_channels": in_channels, "out_channels": out_channels}
    return build(cfg.model, "model", allowed_by(cfg, base), **channels)


def build_task(cfg: DictConfig, parts: Parts) -> Task:
    """Build the task around the network, with optimizer and scheduler."""
    return build(
        cfg.task,
        "task",
        allowed_by(cfg),
        network=parts.network,
        facts=parts.data.facts,
        optimizer=parts.optimizer,
        scheduler=parts.scheduler,
    )
