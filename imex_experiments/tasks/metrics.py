"""Segmentation scores of a whole split: from its confusion matrix, and the published IoU.

Shapes: labels (B, H, W), integers; confusion matrices (K, K), rows true, columns predicted.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

PUBLISHED_CLASSES = ("background", "white-white", "white-black", "black-black")
"""The classes of Q-tips, in the order for which PublishedIoU is defined."""


class PublishedIoU(Metric):
    """The IoU of the released IMEXnet code: mean over images of sum(a & b) / sum(a | b).

    a and b are the predicted and the true labels, combined bit by bit as integers. So it is
    not an IoU of sets of pixels: labels 1 and 3 share a bit, labels 1 and 2 do not. For
    example, a network that finds every object and labels all of them c scores the mean of
    (c & t) / (c | t) over the true labels t. For t uniform over 1, 2, 3 these are 4/9, 5/9
    and 2/3 for c = 1, 2, 3. An image without objects, true or predicted, scores 1.
    """

    ratios: Tensor
    images: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("ratios", torch.zeros((), dtype=torch.float64), "sum")
        self.add_state("images", torch.zeros((), dtype=torch.int64), "sum")

    def update(self, guess: Tensor, truth: Tensor) -> None:
        """Add the labels (B, H, W), of any integer type, of a batch."""
        guess, truth = guess.long().flatten(1), truth.long().flatten(1)
        both, either = (guess & truth).sum(1).double(), (guess | truth).sum(1)
        self.ratios += torch.where(either > 0, both / either.clamp(min=1), 1.0).sum()
        self.images += len(truth)

    def compute(self) -> Tensor:
        """Return the mean over the images, float64; NaN without images."""
        return self.ratios / self.images


def has_background(classes: Sequence[str]) -> bool:
    """Return True if class 0 is a background, which its name says."""
    return classes[0].lower() == "background"


def segmentation_scores(confusion: Tensor, classes: Sequence[str]) -> dict[str, float]:
    """Return IoU, Dice and accuracy from a confusion matrix of pixel counts.

    - iou/<class> = TP / (TP + FP + FN); NaN for a class without a true pixel
    - miou = mean of the IoUs that are not NaN
    - object_iou = that mean without class 0, if class 0 is a background
    - dice = mean of 2 TP / (2 TP + FP + FN), over the same classes as miou
    - accuracy = share of correct pixels
    """
    confusion = confusion.double()
    hits, true = confusion.diag(), confusion.sum(1)
    union = confusion.sum(0) + true - hits
    iou = torch.where(true > 0, hits / union, torch.nan)
    dice = 2 * hits / (union + hits)
    scores = {
        "miou": iou.nanmean(),
        **({"object_iou": iou[1:].nanmean()} if has_background(classes) else {}),
        "dice": torch.where(true > 0, dice, torch.nan).nanmean(),
        "accuracy": hits.sum() / confusion.sum(),
        **{f"iou/{name}": value for name, value in zip(classes, iou, strict=True)},
    }
    return {name: float(torch.as_tensor(value)) for name, value in scores.items()}
