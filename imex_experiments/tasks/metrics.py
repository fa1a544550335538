"""Scores of a whole split, from one confusion matrix summed over it."""

from collections.abc import Sequence

import torch
from torch import Tensor


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
