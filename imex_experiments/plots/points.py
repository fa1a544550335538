"""Points and what a network makes of the space around them, as pictures (H, W, 3) uint8."""

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from imex_experiments.plots.curves import COLOURS
from imex_experiments.plots.sheet import Pixels

Values = NDArray[np.floating]


def fit_picture(
    x: Values, prediction: Values, points: Values, targets: Values
) -> Pixels:
    """A curve y(x), all (N,), over the training points it was fitted to."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axis = figure.subplots()
    axis.plot(points, targets, "o", color=COLOURS[1], markersize=4, label="training")
    axis.plot(x, prediction, color=COLOURS[0], label="network")
    axis.set_xlabel("x")
    axis.legend()
    axis.grid(alpha=0.3)
    return _pixels(figure)


def boundary_picture(
    extent: tuple[float, float],
    probability: Values,
    points: Values,
    labels: NDArray[np.integer],
    classes: Sequence[str],
) -> Pixels:
    """Probability (n, n) of the second class over the square extent^2, row 0 at the bottom.

    Points (N, 2) carry the colour of their class; the line is where both are as probable.
    """
    figure = Figure(figsize=(5, 4.4), layout="constrained")
    axis = figure.subplots()
    low, high = extent
    image = axis.imshow(
        probability,
        origin="lower",
        extent=(low, high, low, high),
        cmap="cividis",
        vmin=0,
        vmax=1,
    )
    axis.contour(
        np.linspace(low, high, len(probability)),
        np.linspace(low, high, len(probability)),
        probability,
        levels=[0.5],
        colors="white",
    )
    for index, name in enumerate(classes):
        x, y = points[labels == index].T
        colour = COLOURS[(1, 2)[index % 2]]
        axis.plot(x, y, "o", color=colour, markeredgecolor="white", label=name)
    axis.legend(loc="upper right")
    figure.colorbar(image, label=f"P({classes[1]})")
    return _pixels(figure)


def _pixels(figure: Figure) -> Pixels:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
