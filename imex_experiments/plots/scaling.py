"""Figures of what a step costs over size: measured, predicted, extrapolated."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from imex_experiments.plots.curves import COLOURS, STYLES

MARKERS = "os^Dv"


@dataclass(frozen=True)
class Line:
    """Values over x; `measured`, at the same x, are drawn as points."""

    x: Sequence[float]
    y: Sequence[float]
    measured: Sequence[float] | None = None


@dataclass(frozen=True)
class Panel:
    """Lines by name on axes of logarithmic scale; y in `unit`."""

    title: str
    x_label: str
    y_label: str
    lines: Mapping[str, Line]


def scaling_figure(panels: Sequence[Panel]) -> Figure:
    """One panel beside the other; a line is a prediction, a marker a measurement."""
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
