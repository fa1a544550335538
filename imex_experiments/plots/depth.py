"""Sheets of true and predicted depths and their errors, on shared colour scales.

Shapes: images (N, 1 or 3, H, W) uint8; truth and prediction (N, H, W) in metres, truth 0 where
it is unknown.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from imex_experiments.plots.sheet import NEUTRAL, ColourBar, Pixels, as_rgb, draw_sheet


def depth_sheet(
    images: Pixels,
    truth: NDArray[np.floating],
    prediction: NDArray[np.floating],
) -> Pixels:
    """Draw image | depth | prediction | error, one row per sample."""
    return depth_comparison_sheet(images, truth, {"prediction": prediction})


def depth_comparison_sheet(
    images: Pixels,
    truth: NDArray[np.floating],
    predictions: Mapping[str, NDArray[np.floating]],
) -> Pixels:
    """Draw image | depth | prediction and error of each network, one row per sample.

    Pixels without a known depth are grey in the truth and in the errors.
    `predictions` has a title per network. All depths share one scale, all errors another,
    which ends at the 98th percentile.
    """
    known = truth > 0
    errors = [np.abs(prediction - truth) for prediction in predictions.values()]
    furthest = max(1.0, float(np.ceil(truth.max())))
    seen = np.concatenate([error[known] for error in errors])
    worst = float(np.ceil(np.percentile(seen, 98) * 10) / 10) if seen.size else 1.0
    depth_scale = ColourBar("depth", 0, furthest, "viridis", "m")
    error_scale = ColourBar("|error|", 0, worst, "magma", "m")

    def panels(scale: ColourBar, values: NDArray[np.floating]) -> Pixels:
        return np.where(known[..., None], scale.colours(values), NEUTRAL)

    titles = ["image", "depth"]
    columns = [[as_rgb(image) for image in images], panels(depth_scale, truth)]
    for (title, prediction), error in zip(predictions.items(), errors, strict=True):
        titles += [title, "|error|"]
        columns += [depth_scale.colours(prediction), panels(error_scale, error)]
    rows = list(zip(*columns, strict=True))
    return draw_sheet(rows, titles, [depth_scale, error_scale])
