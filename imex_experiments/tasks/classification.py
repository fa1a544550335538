"""Every image gets one of K classes.

Shapes: images (B, C, H, W), vectors as (B, C, 1, 1); labels (B,) uint8; logits (B, K).
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

from imex_experiments.plots.classes import class_sheet
from imex_experiments.plots.points import boundary_picture
from imex_experiments.tasks.task import Task

GRID = 120
"""Points per side of the grid that shows a decision boundary."""


class ClassificationTask(Task):
    """Cross entropy, and the share of images classified right.

    `facts["classes"]` names the K classes. For points in the plane, `facts["range"]` is
    there and the figure is the decision boundary around the training points.
    """

    monitor = "val/accuracy"
    mode = "max"
    curves: ClassVar = {
        "loss": ("train/loss", "val/loss"),
        "accuracy": ("val/accuracy",),
    }

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
        self.mean_loss, self.accuracy = MeanMetric(), MeanMetric()

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        images, labels = batch
        loss = F.cross_entropy(self(images), labels.long())
        self.log("train/loss", loss, on_step=True, on_epoch=False, prog_bar=True)
        return self.regularised(loss)

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        images, labels = batch
        logits = self(images)
        loss = F.cross_entropy(logits, labels.long())
        self.mean_loss.update(loss, weight=len(images))
        self.accuracy.update((logits.argmax(1) == labels).float())

    def on_validation_epoch_end(self) -> None:
        self._log_scores("val")

    test_step = validation_step

    def on_test_epoch_end(self) -> None:
        self._log_scores("test")

    def _log_scores(self, split: str) -> None:
        for name, metric in (("loss", self.mean_loss), ("accuracy", self.accuracy)):
            value = float(metric.compute())
            self.log(f"{split}/{name}", value, prog_bar=name == "accuracy")
            metric.reset()

    def _decide(self, output: Tensor) -> Tensor:
        """The most probable class, uint8 (B,)."""
        return output.argmax(1).to(torch.uint8)

    def probabilities(self, images: Tensor) -> Tensor:
        """Return class probabilities (B, K) of what `evaluated` takes."""
        return self.evaluated(images).softmax(1)

    def figures(self, images: Tensor, targets: Tensor) -> dict[str, np.ndarray]:
        classes = self.facts["classes"]
        if "range" in self.facts:
            return {"boundary": self._boundary(classes)}
        probabilities = self.probabilities(images).float().cpu().numpy()
        pictures = images.cpu().numpy()
        sheet = class_sheet(pictures, targets.cpu().numpy(), probabilities, classes)
        return {"classes": sheet}

    def _boundary(self, classes: list[str]) -> np.ndarray:
        low, high = self.facts["range"]
        side = torch.linspace(low, high, GRID)
        y, x = torch.meshgrid(side, side, indexing="ij")
        plane = torch.stack([x, y], dim=2).view(-1, 2, 1, 1)
        second = self.probabilities(plane)[:, 1].view(GRID, GRID).cpu().numpy()
        points = np.asarray(self.facts["inputs"])
        labels = np.asarray(self.facts["targets"], dtype=int)
        return boundary_picture((low, high), second, points, labels, classes)
