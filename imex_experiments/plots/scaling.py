"""Figures of the cost of a step over its size: measured, predicted, extrapolated."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from imex_experiments.plots.curves import COLOURS, STYLES

MARKERS = "os^Dv"


@dataclass(frozen=True)
class Line:
    """Predicted values y over x, and measured values at the same x, if any."""

    x: Sequence[float]
    y: Sequence[float]
    measured: Sequence[float] | None = None


@dataclass(frozen=True)
class Panel:
    """The lines of a panel by name, on logarithmic axes; the labels contain the units."""

    title: str
    x_label: str
    y_label: str
    lines: Mapping[str, Line]


def scaling_figure(panels: Sequence[Panel]) -> Figure:
    """Draw the panels side by side: lines are predictions, markers are measurements."""
    figure = Figure(figsize=(4.6 * len(panels), 4.2), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, panel in zip(axes, panels, strict=True):
        for index, (name, line) in enumerate(panel.lines.items()):
            colour, style = COLOURS[index % 6], STYLES[index % 4]
            label = name if line.measured is None else f"{name}, predicted"
            axis.plot(line.x, line.y, style, color=colour, label=label)
            if line.measured is not None:
                axis.plot(
                    line.x,
                    line.measured,
                    MARKERS[index % 5],
                    color=colour,
                    label=f"{name}, measured",
                )
        ticks = np.unique(np.concatenate([line.x for line in panel.lines.values()]))
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks], rotation=45)
        axis.minorticks_off()
        axis.set_title(panel.title, fontsize="medium")
        axis.set_xlabel(panel.x_label)
        axis.set_ylabel(panel.y_label)
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
    return figure
