"""Figure of scores against the level of a corruption or an attack."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from imex_experiments.plots.curves import COLOURS, STYLES

Values = NDArray[np.floating]


@dataclass(frozen=True)
class SeedScores:
    """Scores of several seeds, (seeds, levels), over levels (levels,)."""

    levels: Values
    scores: Values


def robustness_figure(
    panels: Mapping[str, Mapping[str, SeedScores]], score: str, columns: int = 3
) -> Figure:
    """Draw one panel per disturbance; `panels[label][network]` are the scores.

    The label with the unit of the level is below the panel. Lines show means over seeds,
    bands their range.
    """
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.7 * columns, 2.9 * rows + 0.4), layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axis, (label, bands) in zip(axes, panels.items(), strict=False):
        for index, (name, band) in enumerate(bands.items()):
            colour, style = COLOURS[index % 6], STYLES[index % 4]
            mean = band.scores.mean(0)
            axis.plot(band.levels, mean, style, marker=".", color=colour, label=name)
            low, high = band.scores.min(0), band.scores.max(0)
            axis.fill_between(band.levels, low, high, color=colour, alpha=0.15)
        axis.set_xlabel(label)
        axis.set_ylabel(score)
        axis.grid(alpha=0.3)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=len(labels),
        title="mean, range over seeds",
    )
    return figure
