"""Recompute the running statistics of batch norms before each validation."""

from collections.abc import Iterable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from imex_experiments.facts import DataModule

MOST_PIXELS = 2**25
"""Most pixels of the images that are passed through, which bounds the memory."""


class BatchStatistics(pl.Callback):
    """Average the batch statistics with the present weights, before each validation.

    Running averages lag behind the weights. The channels of an implicit network carry sums
    over the whole image, so its validation scores fluctuate with this lag. The first
    `images` training images, or as many as have MOST_PIXELS, are passed through in training
    mode, in batches of the training size; no random numbers are drawn. Frozen norms are left
    alone. Source: Wu and Johnson, Rethinking "Batch" in BatchNorm (2021), sec. 3, "precise
    BN".
    """

    def __init__(self, images: int = 256) -> None:
        if images < 2:
            raise ValueError(f"images must be >= 2, got {images}")
        self.images = images

    def on_validation_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        data: DataModule = trainer.datamodule  # type: ignore[attr-defined]
        _, height, width = data.image_shape
        most = max(2, MOST_PIXELS // (height * width))
        images, *_ = data.samples("train", min(self.images, most))
        batches = (batch for batch in images.split(data.batch_size) if len(batch) > 1)
        update_statistics(pl_module, batches)


@torch.no_grad()
def update_statistics(task: Any, batches: Iterable[Tensor]) -> None:
    """Make the running statistics of a task's batch norms the mean over the batches.

    torch.optim.swa_utils.update_bn does the same, and resets frozen norms too.
    """
    training = task.training
    task.train()
    norms = [m for m in task.modules() if isinstance(m, _BatchNorm) and m.training]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a mean over all batches
    for batch in batches if norms else ():
        task(batch.to(task.device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    task.train(training)
