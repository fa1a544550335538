"""Recompute the running statistics of batch norms before each validation."""

from typing import Any

import pytorch_lightning as pl
from torch.optim.swa_utils import update_bn

from imex_experiments.facts import DataModule

MOST_PIXELS = 2**25
"""Most pixels of the images that are passed through, which bounds the memory."""


class BatchStatistics(pl.Callback):
    """Average the batch statistics with the present weights, before each validation.

    Running averages lag behind the weights. The channels of an implicit network carry sums
    over the whole image, so its validation scores fluctuate with this lag. The first
    `images` training images, or as many as have MOST_PIXELS, are passed through in training
    mode, in batches of the training size; no random numbers are drawn. Source: Wu and
    Johnson, Rethinking "Batch" in BatchNorm (2021), sec. 3, "precise BN".
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
        update_bn(batches, pl_module, device=pl_module.device)
