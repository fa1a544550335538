"""Choose alpha during training, and log how blocks change states and perturbations."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from imex_experiments.analysis.auto_alpha import update_alphas
from imex_experiments.analysis.perturbation import block_growths
from imex_experiments.facts import DataModule
from imex_experiments.networks import DynamicNet


class AutoAlpha(pl.Callback):
    """Choose every `alpha=auto` before each epoch, at the first training images.

    Logs `stability/alpha/<step>`. A network without such an alpha is not changed.
    """

    def __init__(self, images: int = 4) -> None:
        if images < 1:
            raise ValueError(f"images must be >= 1, got {images}")
        self.images = images

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        with _evaluating(trainer, pl_module, "train", self.images) as images:
            if images is not None:
                for name, alpha in update_alphas(pl_module.network, images).items():
                    pl_module.log(f"stability/alpha/{name}", alpha)


class StabilityLog(pl.Callback):
    """Log the growth of perturbations and the size of states, after each validation.

    For the first `images` validation images, `stability/growth/block <n>` is the factor by
    which the block changes the norm of a small perturbation, and `stability/norm/block <n>`
    the root mean square of its output Y. A network without blocks is not logged.
    """

    def __init__(self, images: int = 4) -> None:
        if images < 1:
            raise ValueError(f"images must be >= 1, got {images}")
        self.images = images

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        with _evaluating(trainer, pl_module, "val", self.images) as images:
            if images is not None:
                for n, block in enumerate(block_growths(pl_module.network, images), 1):
                    pl_module.log(f"stability/growth/block {n}", block.growth)
                    pl_module.log(f"stability/norm/block {n}", block.norm)


@contextmanager
def _evaluating(
    trainer: pl.Trainer, pl_module: Any, split: str, number: int
) -> Iterator[Tensor | None]:
    """Yield the first images of a split, normalised, with the network in evaluation mode.

    Yields None for a network without blocks.
    """
    if not isinstance(pl_module.network, DynamicNet):
        yield None
        return
    data: DataModule = trainer.datamodule  # type: ignore[attr-defined]
    images, *_ = data.samples(split, number)
    training = pl_module.training
    pl_module.eval()
    with torch.no_grad():
        yield pl_module.normalised(images.to(pl_module.device))
    pl_module.train(training)
