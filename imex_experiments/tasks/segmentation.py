"""Segmentation: one of K classes for each pixel.

Shapes: images (B, C, H, W); labels (B, H, W) uint8; logits (B, K, H, W).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

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
from imex_experiments.tasks.metrics import (
    PUBLISHED_CLASSES,
    PublishedIoU,
    has_background,
    segmentation_scores,
)
from imex_experiments.tasks.task import Task

NO_LABEL = -100
"""The label that torch's cross entropy leaves out unless another is given; no class."""


class SegmentationTask(Task):
    """Segmentation by cross entropy, each class weighted by 1 - its training frequency.

    `facts["classes"]` names the K classes; `facts["class_frequency"]` holds their shares
    of the training pixels. Pixels of `facts["ignore_label"]`, if there is one, are left out
    of loss, scores and figures. The score is the mean IoU.
    """

    monitor = "val/miou"
    mode = "max"
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
        ignored = facts.get("ignore_label")
        self.ignored = NO_LABEL if ignored is None else ignored
        self.confusion = MulticlassConfusionMatrix(
            len(self.classes), ignore_index=self.ignored
        )
        published = tuple(self.classes) == PUBLISHED_CLASSES
        self.published_iou = PublishedIoU() if published else None
        self.mean_loss = MeanMetric()

    @property
    def curves(self) -> dict[str, Sequence[str]]:  # type: ignore[override]
        """Return the charts of the scores that these classes have."""
        miou = ["val/miou"]
        charts: dict[str, Sequence[str]] = {"loss": ("train/loss", "val/loss")}
        charts["mIoU"] = miou
        if has_background(self.classes):
            miou.append("val/object_iou")
        if self.published_iou is not None:
            charts["published IoU"] = ("val/published_iou",)
        return charts | {"Dice and accuracy": ("val/dice", "val/accuracy")}

    def loss(self, output: Tensor, targets: Tensor) -> Tensor:
        """Return the weighted cross entropy, the weighted mean over the pixels that count.

        It is 0 with a zero gradient if no pixel counts.
        """
        if self.ignored != NO_LABEL and not (targets != self.ignored).any():
            return (output * 0).sum()
        return F.cross_entropy(
            output, targets.long(), self.class_weights, ignore_index=self.ignored
        )

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        images, labels = batch
        logits = self(images)
        guess = logits.argmax(1)
        self.confusion.update(guess, labels.long())
        if self.published_iou is not None:
            self.published_iou.update(guess, labels)
        counted = int((labels != self.ignored).sum())
        if counted:
            self.mean_loss.update(self.loss(logits, labels), weight=counted)

    def _scores(self) -> dict[str, float]:
        scores = segmentation_scores(self.confusion.compute(), self.classes)
        if self.published_iou is not None:
            scores["published_iou"] = float(self.published_iou.compute())
        scores["loss"] = float(self.mean_loss.compute())
        return scores

    def score(self, output: Tensor, targets: Tensor) -> float:
        """Return the mean IoU of logits (B, K, H, W) for labels (B, H, W)."""
        number, counted = len(self.classes), targets != self.ignored
        pairs = targets[counted].long() * number + output.argmax(1)[counted]
        confusion = pairs.bincount(minlength=number**2).view(number, number)
        return segmentation_scores(confusion, self.classes)["miou"]

    def sample_losses(self, output: Tensor, targets: Tensor) -> Tensor:
        """Return the cross entropy of each image, the unweighted mean over its pixels.

        Pixels that do not count have the loss 0.
        """
        losses = F.cross_entropy(
            output, targets.long(), reduction="none", ignore_index=self.ignored
        )
        counted = (targets != self.ignored).sum((1, 2))
        return losses.sum((1, 2)) / counted.clamp(min=1)

    def _decide(self, output: Tensor) -> Tensor:
        """Return the most probable class of each pixel, (B, H, W) uint8."""
        return output.argmax(1).to(torch.uint8)

    def probabilities(self, images: Tensor) -> Tensor:
        """Return class probabilities (B, K, H, W) of images, in evaluation mode."""
        return self.evaluated(images).softmax(1)

    def figures(self, images: Tensor, targets: Tensor) -> dict[str, np.ndarray]:
        probabilities = self.probabilities(images).float().cpu().numpy()
        shown, truth = self.pictures(images), targets.cpu().numpy()
        return {
            "segmentation": segmentation_sheet(
                shown, truth, probabilities, self.classes, self.ignored
            )
        }

    def comparison(
        self, images: Tensor, targets: Tensor, predictions: Mapping[str, Tensor]
    ) -> np.ndarray:
        labels = {title: guess.numpy() for title, guess in predictions.items()}
        shown, truth = self.pictures(images), targets.numpy()
        return comparison_sheet(shown, truth, labels, self.classes, self.ignored)
