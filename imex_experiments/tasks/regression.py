"""Regression: one number for each point.

Shapes: points (B, C, 1, 1) float32; targets and outputs (B, 1, 1, 1).
"""

from collections.abc import Callable
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric

from imex_experiments.facts import Facts
from imex_experiments.plots.points import fit_picture
from imex_experiments.tasks.task import Task

CURVE_POINTS = 400
"""Points at which the figure draws the fitted curve."""


class RegressionTask(Task):
    """Regression by mean squared error; the score is its root over a whole split.

    For points `facts["range"]` is the interval that the figure shows, `facts["inputs"]` and
    `facts["targets"]` are the training points. Other inputs have no figure.
    """

    monitor = "val/rmse"
    mode = "min"
    curves: ClassVar = {"loss": ("train/loss", "val/loss"), "RMSE": ("val/rmse",)}

    def __init__(
        self,
        network: nn.Module,
        facts: Facts,
        optimizer: Callable[..., Optimizer] | None = None,
        scheduler: Callable[..., LRScheduler] | None = None,
        undecayed: Literal["norms"] | None = None,
    ) -> None:
        super().__init__(network, facts, optimizer, scheduler, undecayed)
        self.mean_loss = MeanMetric()

    def loss(self, output: Tensor, targets: Tensor) -> Tensor:
        """Return the mean squared error."""
        return F.mse_loss(output, targets)

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        inputs, targets = batch
        self.mean_loss.update(self.loss(self(inputs), targets), weight=len(inputs))

    def _scores(self) -> dict[str, float]:
        loss = float(self.mean_loss.compute())
        return {"loss": loss, "rmse": loss**0.5}

    def _decide(self, output: Tensor) -> Tensor:
        """Return the output itself."""
        return output

    def figures(self, images: Tensor, targets: Tensor) -> dict[str, np.ndarray]:
        if "range" not in self.facts:
            return {}
        low, high = self.facts["range"]
        x = torch.linspace(low, high, CURVE_POINTS)
        curve = self.predict(x.view(-1, 1, 1, 1)).flatten().cpu().numpy()
        points, values = self.facts["inputs"], self.facts["targets"]
        picture = fit_picture(x.numpy(), curve, np.asarray(points), np.asarray(values))
        return {"fit": picture}
