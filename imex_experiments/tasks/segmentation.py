"""Segmentation: one of K classes for each pixel.

Shapes: images (B, C, H, W) uint8; labels (B, H, W) uint8; logits (B, K, H, W).
"""

from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassConfusionMatrix

from imex_experiments.facts import Facts
from imex_experiments.plots.segmentation import comparison_sheet, segmentation_sheet
from imex_experiments.tasks.metrics import PublishedIoU, segmentation_scores
from imex_experiments.tasks.task import Task


class SegmentationTask(Task):
    """Segmentation by cross entropy, each class weighted by 1 - its training frequency.

    `facts["classes"]` names the K classes; `facts["class_frequency"]` holds their shares
    of the training pixels. The score is the mean IoU.
    """

    monitor = "val/miou"
    mode = "max"
    curves: ClassVar = {
        "loss": ("train/loss", "val/loss"),
        "mIoU": ("val/miou", "val/object_iou"),
        "published IoU": ("val/published_iou",),
        "Dice and accuracy": ("val/dice", "val/accuracy"),
    }

    needs = ("classes", "class_frequency")

    classes: list[str]
    class_weights: Tensor

    def __init__(
        self,
        network: nn.Module,
        facts: Facts,
        optimizer: Callable[..., Optimizer] | None = None,
        scheduler: Callable[..., LRScheduler] | None = None,
        undecayed: Literal["norms"] | None = None,
    ) -> None:
        super().__init__(network, facts, optimizer, scheduler, undecayed)
        self.classes = list(facts["classes"])
        weights = 1 - torch.tensor(facts["class_frequency"], dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)
        self.confusion = MulticlassConfusionMatrix(len(self.classes))
        self.published_iou = PublishedIoU()
        self.mean_loss = MeanMetric()

    def loss(self, output: Tensor, targets: Tensor) -> Tensor:
        """Return the weighted cross entropy, the weighted mean over pixels."""
        return F.cross_entropy(output, targets.long(), self.class_weights)

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        images, labels = batch
        logits = self(images)
        guess = logits.argmax(1)
        self.confusion.update(guess, labels.long())
        self.published_iou.update(guess, labels)
        self.mean_loss.update(self.loss(logits, labels), weight=len(images))

    def _scores(self) -> dict[str, float]:
        scores = segmentation_scores(self.confusion.compute(), self.classes)
        scores["published_iou"] = float(self.published_iou.compute())
        scores["loss"] = float(self.mean_loss.compute())
        return scores

    def score(self, output: Tensor, targets: Tensor) -> float:
        """Return the mean IoU of logits (B, K, H, W) for labels (B, H, W)."""
        number = len(self.classes)
        pairs = targets.long().flatten() * number + output.argmax(1).flatten()
        confusion = pairs.bincount(minlength=number**2).view(number, number)
        return segmentation_scores(confusion, self.classes)["miou"]

    def sample_losses(self, output: Tensor, targets: Tensor) -> Tensor:
        """Return the cross entropy of each image, the unweighted mean over its pixels."""
        losses = F.cross_entropy(output, targets.long(), reduction="none")
        return losses.mean((1, 2))

    def _decide(self, output: Tensor) -> Tensor:
        """Return the most probable class of each pixel, (B, H, W) uint8."""
        return output.argmax(1).to(torch.uint8)

    def probabilities(self, images: Tensor) -> Tensor:
        """Return class probabilities (B, K, H, W) of uint8 images, in evaluation mode."""
        return self.evaluated(images).softmax(1)

    def figures(self, images: Tensor, targets: Tensor) -> dict[str, np.ndarray]:
        probabilities = self.probabilities(images).float().cpu().numpy()
        sheet = segmentation_sheet(
            self.pictures(images), targets.cpu().numpy(), probabilities, self.classes
        )
        return {"segmentation": sheet}

    def comparison(
        self, images: Tensor, targets: Tensor, predictions: Mapping[str, Tensor]
    ) -> np.ndarray:
        labels = {title: guess.numpy() for title, guess in predictions.items()}
        shown = self.pictures(images)
        return comparison_sheet(shown, targets.numpy(), labels, self.classes)
