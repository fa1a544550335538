"""Stop at the first NaN or Inf, before it reaches the weights."""

import math
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from imex_experiments.errors import ConfigError, NumericsError


class FiniteCheck(pl.Callback):
    """Raise NumericsError (exit code 5) if loss or gradients are not finite.

    With `wait` the host checks before each update, and waits for the device once a step.
    Without, the device skips this update and all later ones, which a fused optimizer can
    do; the host checks before each validation and each checkpoint. In both cases the
    weights stay as they were before the first bad step.
    """

    def __init__(self, wait: bool = True) -> None:
        self.wait = wait
        self._losses: list[Tensor] = []
        self._names: list[str] = []
        self._found: Tensor | None = None  # 1.0 from the first bad step on
        self._sizes = self._step = torch.empty(0)  # of that step

    def on_train_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> None:
        for optimizer in [] if self.wait else trainer.optimizers:
            if not getattr(optimizer, "_step_supports_amp_scaling", False):
                raise ConfigError(
                    "callbacks.finite_check.wait=false needs optimizer.fused=true"
                )

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        self._losses.append(loss.detach())

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        named = [
            (n, p.grad) for n, p in pl_module.named_parameters() if p.grad is not None
        ]
        norms: Any = torch._foreach_norm([gradient for _, gradient in named])
        loss, self._losses = torch.stack(self._losses).sum(), []
        sizes = torch.stack([loss, *norms])
        self._names = ["loss", *(f"gradient of {name}" for name, _ in named)]
        bad = ~torch.isfinite(sizes).all()
        if self.wait:
            if bad:
                self._raise(sizes, trainer.global_step)
            return
        if self._found is None:
            self._found = torch.zeros((), device=sizes.device)
            self._sizes, self._step = sizes, bad.long()
        first = bad & (self._found == 0)
        self._sizes = torch.where(first, sizes, self._sizes)
        self._step = torch.where(first, trainer.global_step, self._step)
        self._found = torch.maximum(self._found, bad.float())
        optimizer.found_inf = self._found  # type: ignore[attr-defined]

    def on_validation_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._check_device()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        self._check_device()

    def _check_device(self) -> None:
        """Wait for the device, and raise if it has found a bad step."""
        if self._found is not None and self._found:
            self._raise(self._sizes, int(self._step))

    def _raise(self, sizes: Tensor, step: int) -> None:
        what, value = next(
            (name, value)
            for name, value in zip(self._names, sizes.tolist(), strict=True)
            if not math.isfinite(value)
        )
        raise NumericsError(
            f"the {what} is {value} at step {step}; "
            "try a smaller optimizer.lr or model.h"
        )
