"""Every input gets a number.

Shapes: inputs (B, C, 1, 1) float32; targets and outputs (B, 1, 1, 1).
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric

from imex_experiments.plots.points import fit_picture
from imex_experiments.tasks.task import Task

CURVE_POINTS = 400


class RegressionTask(Task):
    """The mean squared error, and its root over a split.

    `facts["inputs"]` and `facts["targets"]` are the training points and `facts["range"]`
    the interval that the figure shows.
    """

    monitor = "val/rmse"
    mode = "min"
    curves: ClassVar = {"loss": ("train/loss", "val/loss"), "RMSE": ("val/rmse",)}

    def __init__(
        self,
        network: nn.Module,
        facts: Mapping[str, Any],
        optimizer: Callable[..., Optimizer] | None = None,
        scheduler: Callable[..., LRScheduler] | None = None,
        undecayed: Literal["norms"] | None = None,
    ) -> None:
        super().__init__(network, facts, optimizer, scheduler, undecayed)
        self.facts = facts
        self.mean_loss = MeanMetric()

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        inputs, targets = batch
        loss = F.mse_loss(self(inputs), targets)
        self.log("train/loss", loss, on_step=True, on_epoch=False, prog_bar=True)
        return self.regularised(loss)

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        inputs, targets = batch
        self.mean_loss.update(F.mse_loss(self(inputs), targets), weight=len(inputs))

    def on_validation_epoch_end(self) -> None:
        self._log_scores("val")

    test_step = validation_step

    def on_test_epoch_end(self) -> None:
        self._log_scores("test")

    def _log_scores(self, split: str) -> None:
        loss = float(self.mean_loss.compute())
        self.mean_loss.reset()
        self.log(f"{split}/loss", loss)
        self.log(f"{split}/rmse", loss**0.5, prog_bar=True)

    def _decide(self, output: Tensor) -> Tensor:
        """The number itself."""
        return output

    def figures(self, images: Tensor, targets: Tensor) -> dict[str, np.ndarray]:
        low, high = self.facts["range"]
        x = torch.linspace(low, high, CURVE_POINTS)
        curve = self.predict(x.view(-1, 1, 1, 1)).flatten().cpu().numpy()
        points, values = (np.asarray(self.facts[n]) for n in ("inputs", "targets"))
        return {"fit": fit_picture(x.numpy(), curve, points, values)}
