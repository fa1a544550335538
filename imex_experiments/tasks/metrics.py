"""Scores of a whole split: from one confusion matrix, and the IoU of the published runs."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric


class PublishedIoU(Metric):
    """Mean over images of sum(a & b) / sum(a | b), a and b labels as integers, bit by bit.

    The score of the released IMEXnet code. It is no set measure: class 1 called 3 shares a
    bit, 1 called 2 none. A network that finds every object and calls all of them c gets
    the mean of (c & t) / (c | t) over the true classes t; for t uniform over 1, 2, 3 that
    is 4/9, 5/9 and 2/3 for c = 1, 2, 3. An image without objects in which none is found
    counts as 1.
    """

    ratios: Tensor
    images: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("ratios", torch.zeros((), dtype=torch.float64), "sum")
        self.add_state("images", torch.zeros((), dtype=torch.int64), "sum")

    def update(self, guess: Tensor, truth: Tensor) -> None:
        """Labels (B, H, W) of any integer type."""
        guess, truth = guess.long().flatten(1), truth.long().flatten(1)
        both, either = (guess & truth).sum(1).double(), (guess | truth).sum(1)
        self.ratios += torch.where(either > 0, both / either.clamp(min=1), 1.0).sum()
        self.images += len(truth)

    def compute(self) -> Tensor:
        """A double, NaN without images."""
        return self.ratios / self.images


def segmentation_scores(confusion: Tensor, classes: Sequence[str]) -> dict[str, float]:
    """IoU, Dice and accuracy from confusion (true, predicted), pixel counts (K, K).

    iou/<class>: TP / (TP + FP + FN), NaN for a class that is neither there nor predicted;
    miou: mean over the classes that are not NaN; object_iou: the same without class 0;
    dice: mean of 2 TP / (2 TP + FP + FN); accuracy: share of pixels labelled right.
    """
    confusion = confusion.double()
    hits = confusion.diag()
    union = confusion.sum(0) + confusion.sum(1) - hits
    iou = hits / union
    dice = 2 * hits / (union + hits)
    scores = {
        "miou": iou.nanmean(),
        "object_iou": iou[1:].nanmean(),
        "dice": dice.nanmean(),
        "accuracy": hits.sum() / confusion.sum(),
        **{f"iou/{name}": value for name, value in zip(classes, iou, strict=True)},
    }
    return {name: float(torch.as_tensor(value)) for name, value in scores.items()}
