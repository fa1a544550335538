"""Stop at the first NaN or Inf, before it reaches the weights."""

import math
from typing import Any

import pytorch_lightning as pl
import torch
from torch.optim import Optimizer

from imex_experiments.runs.errors import NumericsError


class FiniteCheck(pl.Callback):
    """NumericsError (exit code 5) if loss or gradient are not finite, before the update.

    Both are asked for at once, so that the host waits for a device once per step. To
    wait less often the update itself would have to be skipped on the device.
    """

    def __init__(self) -> None:
        self._losses: list[torch.Tensor] = []

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: torch.Tensor
    ) -> None:
        self._losses.append(loss.detach())

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        named = [
            (n, p.grad) for n, p in pl_module.named_parameters() if p.grad is not None
        ]
        norms: Any = torch._foreach_norm([gradient for _, gradient in named])
        losses, self._losses = self._losses, []
        sizes = torch.stack([*losses, *norms])
        if torch.isfinite(sizes).all():
            return
        names = ["loss"] * len(losses) + [f"gradient of {name}" for name, _ in named]
        what, value = next(
            (name, value)
            for name, value in zip(names, sizes.tolist(), strict=True)
            if not math.isfinite(value)
        )
        raise NumericsError(
            f"the {what} is {value} at step {trainer.global_step}; "
            "try a smaller optimizer.lr or model.h"
        )
