"""The parts of an experiment, built from its configuration."""

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Checkpoint, ProgressBar
from torch import nn

from imex_experiments.config.build import build
from imex_experiments.config.trainer import lightning
from imex_experiments.runs.checkpoint_io import VerifiedCheckpointIO


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


def speed_up(network: nn.Module, trainer: DictConfig) -> None:
    """Layout, precision and compilation as `check_ours` has accepted them."""
    if trainer.get("channels_last", False):
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if trainer.get("tf32", False):
        torch.set_float32_matmul_precision("high")
    if wanted := trainer.get("compile", False):  # in place: names in a checkpoint stay
        network.compile(mode=None if wanted is True else wanted)
