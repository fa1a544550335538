"""Classification: one of K classes for each image.

Shapes: images (B, C, H, W), points (B, C, 1, 1); labels (B,) uint8; logits (B, K).
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
from imex_experiments.plots.classes import class_sheet
from imex_experiments.plots.points import boundary_picture
from imex_experiments.tasks.task import Task

GRID = 120
"""Points per side of the grid on which the decision boundary is drawn."""


class ClassificationTask(Task):
    """Classification by cross entropy; the score is the share of correct images.

    `facts["classes"]` names the K classes. For points in the plane, `facts["range"]` is the
    interval of both coordinates, `facts["inputs"]` and `facts["targets"]` are the training
    points, and the figure shows the decision boundary.
    """

    monitor = "val/accuracy"
    mode = "max"
    curves: ClassVar = {
        "loss": ("train/loss", "val/loss"),
        "accuracy": ("val/accuracy",),
    }

    needs = ("classes",)

    def __init__(
        self,
        network: nn.Module,
        facts: Facts,
        optimizer: Callable[..., Optimizer] | None = None,
        scheduler: Callable[..., LRScheduler] | None = None,
        undecayed: Literal["norms"] | None = None,
    ) -> None:
        super().__init__(network, facts, optimizer, scheduler, undecayed)
        self.mean_loss, self.accuracy = MeanMetric(), MeanMetric()

    def loss(self, output: Tensor, targets: Tensor) -> Tensor:
        """Return the cross entropy, the mean over the batch."""
        return F.cross_entropy(output, targets.long())

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        images, labels = batch
        logits = self(images)
        self.mean_loss.update(self.loss(logits, labels), weight=len(images))
        self.accuracy.update((logits.argmax(1) == labels).float())

    def _scores(self) -> dict[str, float]:
        metrics = {"loss": self.mean_loss, "accuracy": self.accuracy}
        return {name: float(metric.compute()) for name, metric in metrics.items()}

    def _decide(self, output: Tensor) -> Tensor:
        """Return the most probable class, (B,) uint8."""
        return output.argmax(1).to(torch.uint8)

    def probabilities(self, images: Tensor) -> Tensor:
        """Return class probabilities (B, K) for inputs as in `evaluated`."""
        return self.evaluated(images).softmax(1)

    def figures(self, images: Tensor, targets: Tensor) -> dict[str, np.ndarray]:
        classes = self.facts["classes"]
        if "range" in self.facts:
            return {"boundary": self._boundary(classes)}
        probabilities = self.probabilities(images).float().cpu().numpy()
        sheet = class_sheet(
            self.pictures(images), targets.cpu().numpy(), probabilities, classes
        )
        return {"classes": sheet}

    def _boundary(self, classes: list[str]) -> np.ndarray:
        """Return a picture of the decision boundary and the training points."""
        low, high = self.facts["range"]
        side = torch.linspace(low, high, GRID)
        y, x = torch.meshgrid(side, side, indexing="ij")
        plane = torch.stack([x, y], dim=2).view(-1, 2, 1, 1)
        second = self.probabilities(plane)[:, 1].view(GRID, GRID).cpu().numpy()
        points = np.asarray(self.facts["inputs"])
        labels = np.asarray(self.facts["targets"], dtype=int)
        return boundary_picture((low, high), second, points, labels, classes)
