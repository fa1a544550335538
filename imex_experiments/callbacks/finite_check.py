"""Stop at the first NaN or Inf, before it reaches the weights."""

from typing import Any

import pytorch_lightning as pl
import torch
from torch.optim import Optimizer

from imex_experiments.runs.errors import NumericsError


class FiniteCheck(pl.Callback):
    """NumericsError (exit code 5) if loss or gradient are not finite, before the update."""

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: torch.Tensor
    ) -> None:
        if not torch.isfinite(loss):
            raise NumericsError(
                f"the loss is {loss.item()} at step {trainer.global_step}; "
                "try a smaller optimizer.lr or model.h"
            )

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        named = [
            (n, p.grad) for n, p in pl_module.named_parameters() if p.grad is not None
        ]
        norms: Any = torch._foreach_norm([gradient for _, gradient in named])
        if not torch.isfinite(torch.stack(norms)).all():
            worst = next(
                name
                for (name, _), norm in zip(named, norms, strict=True)
                if not norm.isfinite()
            )
            raise NumericsError(
                f"the gradient of {worst} is not finite at step {trainer.global_step}; "
                "try a smaller optimizer.lr or model.h"
            )
