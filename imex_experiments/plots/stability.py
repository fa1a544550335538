"""Linear stability: trajectories of a rotation, spectral radii, regions of stability."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from imex_experiments.plots.curves import COLOURS, STYLES

Values = NDArray[np.floating]


def trajectory_figure(paths: Mapping[str, Values], h: float) -> Figure:
    """States (N, 2) of each scheme in the plane, one panel each, with the unit circle."""
    figure = Figure(figsize=(2.6 * len(paths), 2.9), layout="constrained")
    angle = np.linspace(0, 2 * np.pi, 200)
    for axis, (name, path) in zip(
        figure.subplots(1, len(paths)), paths.items(), strict=True
    ):
        axis.plot(np.cos(angle), np.sin(angle), color="lightgrey", linewidth=3)
        axis.plot(*path.T, ".-", color=COLOURS[0], linewidth=0.8, markersize=3)
        axis.set_title(name, fontsize=10)
        axis.set_aspect("equal")
        reach = min(max(1.2, float(np.abs(path).max())), 4.0)
        axis.set_xlim(-reach, reach)
        axis.set_ylim(-reach, reach)
    figure.supxlabel(f"h = {h:g}", fontsize=10)
    return figure


def radius_figure(steps: Values, radii: Mapping[str, Values]) -> Figure:
    """Spectral radius against the step size, 1 is neutral."""
    figure = Figure(figsize=(6, 3.8), layout="constrained")
    axis = figure.subplots()
    for index, (name, values) in enumerate(radii.items()):
        style = STYLES[index % 4]
        axis.plot(steps, values, style, color=COLOURS[index % 6], label=name)
    axis.set_ylim(0, 3.3)
    axis.set_xlabel("h")
    axis.set_ylabel("spectral radius")
    axis.grid(alpha=0.3)
    axis.legend()
    return figure


def region_figure(re: Values, im: Values, regions: Mapping[str, Values]) -> Figure:
    """Where |R(z)| <= 1 (shaded), one panel per scheme; values (len(im), len(re))."""
    columns = 3
    rows = -(-len(regions) // columns)
    figure = Figure(figsize=(3 * columns, 3 * rows), layout="constrained")
    panels = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axis, (name, values) in zip(panels, regions.items(), strict=False):
        axis.contourf(re, im, values, levels=[0, 1 + 1e-9], colors=[COLOURS[5]])
        axis.contour(re, im, values, levels=[1], colors=[COLOURS[0]])
        axis.axhline(0, color="grey", linewidth=0.5)
        axis.axvline(0, color="grey", linewidth=0.5)
        axis.set_title(name, fontsize=10)
        axis.set_aspect("equal")
    for axis in panels[len(regions) :]:
        axis.set_visible(False)
    figure.supxlabel("Re z", fontsize=10)
    figure.supylabel("Im z", fontsize=10)
    return figure
