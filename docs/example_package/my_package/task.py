"""A task: here a loss of one's own, with the metrics and figures of segmentation."""

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from imex_experiments.tasks import SegmentationTask


def focal_loss(logits: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """Return mean (1 - p)^gamma (-log p), p the probability of the true class.

    Shapes: logits (B, K, H, W), labels (B, H, W). Source: Lin et al. (2017).
    """
    surprise = F.cross_entropy(logits, labels.long(), reduction="none")
    return ((1 - (-surprise).exp()) ** gamma * surprise).mean()


class FocalTask(SegmentationTask):
    """Segmentation by focal loss."""

    def __init__(self, gamma: float = 2.0, **named: Any) -> None:
        super().__init__(**named)
        self.gamma = gamma

    def loss(self, output: Tensor, targets: Tensor) -> Tensor:
        return focal_loss(output, targets, self.gamma)
