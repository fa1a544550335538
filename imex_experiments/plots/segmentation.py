"""Pictures of segmentations: labels as colours, over an image or beside it.

Shapes: images (N, C, H, W) uint8; truth (N, H, W); probabilities (N, K, H, W) in [0, 1].
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from imex_experiments.plots.sheet import (
    PALETTE,
    ColourBar,
    Pixels,
    Swatches,
    as_rgb,
    draw_sheet,
)


def colour_labels(labels: NDArray[np.integer]) -> Pixels:
    """Return labels (..., H, W) as colours (..., H, W, 3)."""
    return PALETTE[labels % len(PALETTE)]


def overlay(
    image: Pixels, labels: NDArray[np.integer], strength: float = 0.6
) -> Pixels:
    """Return an image (C, H, W) tinted by its labels (H, W), except in class 0."""
    picture = as_rgb(image)
    tinted = (1 - strength) * picture + strength * colour_labels(labels)
    return np.where(labels[..., None] > 0, tinted, picture).astype(np.uint8)


def segmentation_sheet(
    images: Pixels,
    truth: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    classes: Sequence[str],
) -> Pixels:
    """Draw image | truth | prediction | probability per class, one row per sample."""
    scale = ColourBar("probability", 0, 1)
    rows = [
        [
            as_rgb(image),
            colour_labels(label),
            colour_labels(probability.argmax(0)),
            *scale.colours(probability),
        ]
        for image, label, probability in zip(images, truth, probabilities, strict=True)
    ]
    titles = ["image", "truth", "prediction", *(f"P({name})" for name in classes)]
    return draw_sheet(rows, titles, [Swatches(classes), scale])


def comparison_sheet(
    images: Pixels,
    truth: NDArray[np.integer],
    predictions: Mapping[str, NDArray[np.integer]],
    classes: Sequence[str],
) -> Pixels:
    """Draw image | truth | prediction of each network, one row per sample.

    `predictions` has labels (N, H, W) under a title per network.
    """
    columns = [colour_labels(labels) for labels in (truth, *predictions.values())]
    rows = [[as_rgb(i), *panels] for i, *panels in zip(images, *columns, strict=True)]
    return draw_sheet(rows, ["image", "truth", *predictions], [Swatches(classes)])
