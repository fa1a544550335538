"""A sheet of images with their true and predicted classes.

Shapes: images (N, C, H, W) uint8; truth (N,); probabilities (N, K).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from imex_experiments.plots.sheet import (
    ColourBar,
    Pixels,
    as_rgb,
    draw_sheet,
)


def class_sheet(
    images: Pixels,
    truth: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    classes: Sequence[str],
) -> Pixels:
    """Draw one column per image, titled "truth > prediction".

    Below each image, K vertical bars show the probabilities of the classes as colours.
    """
    guess = probabilities.argmax(1)
    titles = [f"{classes[t]} > {classes[g]}" for t, g in zip(truth, guess, strict=True)]
    scale = ColourBar("probability", 0, 1)
    height, width = images.shape[-2:]
    edges = np.linspace(0, width, len(classes) + 1).astype(int)
    bars = []
    for probability in probabilities:
        bar = np.repeat(probability, np.diff(edges))
        bars.append(scale.colours(np.broadcast_to(bar, (height, width))))
    rows = [[as_rgb(image) for image in images], bars]
    return draw_sheet(rows, titles, [scale])
