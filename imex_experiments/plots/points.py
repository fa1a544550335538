"""Pictures (H, W, 3) uint8 of a function fitted to points, or of a decision boundary."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from imex_experiments.plots.curves import COLOURS
from imex_experiments.plots.render import render
from imex_experiments.plots.sheet import Pixels

Values = NDArray[np.floating]


def fit_picture(
    x: Values, prediction: Values, points: Values, targets: Values
) -> Pixels:
    """Draw the predicted curve over x (N,), and the training points (M,) with targets."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axis = figure.subplots()
    axis.plot(points, targets, "o", color=COLOURS[1], markersize=4, label="training")
    axis.plot(x, prediction, color=COLOURS[0], label="network")
    axis.set_xlabel("x")
    axis.legend()
    axis.grid(alpha=0.3)
    return render(figure)


def boundary_picture(
    extent: tuple[float, float],
    probability: Values,
    points: Values,
    labels: NDArray[np.integer],
    classes: Sequence[str],
) -> Pixels:
    """Draw the probability (n, n) of the second of two classes, and points (N, 2).

    The picture shows the square extent x extent, row 0 at the bottom. Points have the
    colour of their class. The line marks a probability of 1/2.
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
    return render(figure)
