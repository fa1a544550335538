"""A callback of Lightning."""

from typing import Any

import pytorch_lightning as pl
import torch


class WeightNorm(pl.Callback):
    """Log the Euclidean norm of all weights, after each validation."""

    def __init__(self, name: str = "weights/norm") -> None:
        self.name = name

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        squares = [w.detach().square().sum() for w in pl_module.network.parameters()]
        pl_module.log(self.name, torch.stack(squares).sum().sqrt())
