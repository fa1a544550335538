"""Pictures of segmentations: labels as colours, over an image or beside it.

Shapes: images (N, C, H, W) uint8; truth (N, H, W); probabilities (N, K, H, W) in [0, 1].
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from imex_experiments.plots.sheet import (
    NEUTRAL,
    PALETTE,
    ColourBar,
    Pixels,
    Swatches,
    as_rgb,
    draw_sheet,
)

MOST_PROBABILITIES = 6
"""Most classes whose probabilities are drawn each, in a column of its own."""


def colour_labels(labels: NDArray[np.integer], ignored: int | None = None) -> Pixels:
    """Return labels (..., H, W) as colours (..., H, W, 3); the label `ignored` is grey."""
    colours = PALETTE[labels % len(PALETTE)]
    return np.where((labels == ignored)[..., None], NEUTRAL, colours)


def overlay(
    image: Pixels,
    labels: NDArray[np.integer],
    strength: float = 0.6,
    background: bool = True,
) -> Pixels:
    """Return an image (C, H, W) tinted by its labels (H, W); a background is not tinted."""
    picture = as_rgb(image)
    tinted = (1 - strength) * picture + strength * colour_labels(labels)
    seen = labels[..., None] > 0 if background else True
    return np.where(seen, tinted, picture).astype(np.uint8)


def segmentation_sheet(
    images: Pixels,
    truth: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    classes: Sequence[str],
    ignored: int | None = None,
) -> Pixels:
    """Draw image | truth | prediction | probability per class, one row per sample.

    For more than MOST_PROBABILITIES classes one column shows the highest probability,
    the confidence of the prediction.
    """
    scale, many = ColourBar("probability", 0, 1), len(classes) > MOST_PROBABILITIES
    rows = [
        [
            as_rgb(image),
            colour_labels(label, ignored),
            colour_labels(probability.argmax(0)),
            *scale.colours(probability.max(0)[None] if many else probability),
        ]
        for image, label, probability in zip(images, truth, probabilities, strict=True)
    ]
    shown = ["confidence"] if many else [f"P({name})" for name in classes]
    titles = ["image", "truth", "prediction", *shown]
    return draw_sheet(rows, titles, [_names(classes, truth, ignored), scale])


def comparison_sheet(
    images: Pixels,
    truth: NDArray[np.integer],
    predictions: Mapping[str, NDArray[np.integer]],
    classes: Sequence[str],
    ignored: int | None = None,
) -> Pixels:
    """Draw image | truth | prediction of each network, one row per sample.

    `predictions` has labels (N, H, W) under a title per network.
    """
    columns = [
        colour_labels(truth, ignored),
        *(colour_labels(labels) for labels in predictions.values()),
    ]
    rows = [[as_rgb(i), *panels] for i, *panels in zip(images, *columns, strict=True)]
    titles = ["image", "truth", *predictions]
    return draw_sheet(rows, titles, [_names(classes, truth, ignored)])


def _names(
    classes: Sequence[str], truth: NDArray[np.integer], ignored: int | None
) -> Swatches:
    """Return the legend of classes, with the grey of pixels that do not count, if any."""
    left_out = ignored is not None and bool((truth == ignored).any())
    return Swatches(classes, "not counted" if left_out else None)
