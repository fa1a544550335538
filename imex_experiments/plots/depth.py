"""Depth: image | depth | prediction | error, in metres on shared colour scales.

Shapes: images (N, 3, H, W) uint8; truth and prediction (N, H, W), metres, truth 0 where
it is not known.
"""

import numpy as np
from numpy.typing import NDArray

from imex_experiments.plots.sheet import ColourBar, Pixels, as_rgb, draw_sheet

UNKNOWN = np.array([128, 128, 128], dtype=np.uint8)


def depth_sheet(
    images: Pixels, truth: NDArray[np.floating], prediction: NDArray[np.floating]
) -> Pixels:
    """One row a sample; depth and prediction share one scale, unknown depths are grey."""
    known = truth > 0
    error = np.abs(prediction - truth)
    furthest = float(np.ceil(truth.max()))
    worst = (
        float(np.ceil(np.percentile(error[known], 98) * 10) / 10)
        if known.any()
        else 1.0
    )
    depth_scale = ColourBar("depth", 0, furthest, "viridis", "m")
    error_scale = ColourBar("|error|", 0, worst, "magma", "m")

    def panel(scale: ColourBar, values: NDArray[np.floating], shown: NDArray) -> Pixels:
        return np.where(shown[..., None], scale.colours(values), UNKNOWN)

    rows = [
        [
            as_rgb(image),
            panel(depth_scale, depth, mask),
            depth_scale.colours(guess),
            panel(error_scale, difference, mask),
        ]
        for image, depth, guess, difference, mask in zip(
            images, truth, prediction, error, known, strict=True
        )
    ]
    titles = ["image", "depth", "prediction", "|prediction - depth|"]
    return draw_sheet(rows, titles, [depth_scale, error_scale])
