"""Images with the classes given to them."""

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
    """One column an image (N, C, H, W), headed by "truth > prediction"; truth (N,).

    Below each image its probabilities (N, K) are columns, left to right.
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
