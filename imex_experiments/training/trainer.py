"""Build callbacks, logger and trainer from a configuration."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Checkpoint, ProgressBar
from pytorch_lightning.loggers import Logger
from torch import nn

from imex_experiments.config.allow import allowed_by
from imex_experiments.config.build import build
from imex_experiments.config.trainer import lightning
from imex_experiments.runs.checkpoint_io import VerifiedCheckpointIO
from imex_experiments.training.processes import watch_processes


def build_callbacks(cfg: DictConfig, otherwise: pl.Callback) -> list[pl.Callback]:
    """Build the callbacks that are not null.

    `otherwise` is added if no callback of its class is configured.
    """
    callbacks = _build_named(cfg, "callbacks")
    return callbacks if _has(callbacks, type(otherwise)) else [*callbacks, otherwise]


def build_loggers(cfg: DictConfig) -> list[Logger]:
    """Build the loggers that are not null; they open files and connections later."""
    return _build_named(cfg, "logger")


def _build_named(cfg: DictConfig, group: str) -> list[Any]:
    nodes, allowed = cfg.get(group) or {}, allowed_by(cfg)
    return [
        build(node, f"{group}.{name}", allowed)
        for name, node in nodes.items()
        if node is not None
    ]


def build_trainer(
    cfg: DictConfig, callbacks: Sequence[pl.Callback], loggers: Sequence[Logger]
) -> Any:
    """Build the trainer with these callbacks and loggers, and no others.

    Where there are none, Lightning would add a logger, checkpoints or a progress bar of
    its own.
    """
    watch_processes(Path(cfg.run_dir))
    return build(
        lightning(cfg.trainer),
        "trainer",
        callbacks=callbacks,
        logger=list(loggers) or False,
        plugins=[VerifiedCheckpointIO()],
        enable_checkpointing=_has(callbacks, Checkpoint),
        enable_progress_bar=_has(callbacks, ProgressBar),
    )


def _has(callbacks: Sequence[pl.Callback], kind: type) -> bool:
    return any(isinstance(callback, kind) for callback in callbacks)


def speed_up(network: nn.Module, trainer: DictConfig) -> None:
    """Apply `channels_last`, `tf32` and `compile` of the node `trainer`."""
    if trainer.get("channels_last", False):
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if trainer.get("tf32", False):
        torch.set_float32_matmul_precision("high")
    if wanted := trainer.get("compile", False):  # in place: state-dict keys stay
        network.compile(mode=None if wanted is True else wanted)
