"""Curves of several runs over epochs, grouped by model."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's colours, distinct for colour-blind readers."""

STYLES = ("-", "--", ":", "-.")

Curve = tuple[NDArray[np.floating], NDArray[np.floating]]
"""Epochs and values, each (E,)."""


def convergence_figure(
    panels: Mapping[str, Mapping[str, Sequence[Curve]]], unit: str = ""
) -> Figure:
    """Draw one panel per metric: a thin line per run, and a thick mean line per model.

    `panels[metric][model]` are the curves of the runs of a model. The scale of a panel is
    logarithmic if its values are positive and span more than a factor of 100.
    """
    figure = Figure(figsize=(4.8 * len(panels), 3.6), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(panels)))
    for axis, (metric, models) in zip(axes, panels.items(), strict=True):
        drawn = np.concatenate([v for curves in models.values() for _, v in curves])
        for index, (model, curves) in enumerate(models.items()):
            colour, style = COLOURS[index % 6], STYLES[index // 6 % 4]
            for epochs, values in curves:
                axis.plot(
                    epochs, values, style, color=colour, alpha=0.35, linewidth=0.8
                )
            length = min(len(epochs) for epochs, _ in curves)
            mean = np.mean([values[:length] for _, values in curves], axis=0)
            label = f"{model}, mean of {len(curves)}" if len(curves) > 1 else model
            axis.plot(curves[0][0][:length], mean, style, color=colour, label=label)
        axis.set_xlabel("epoch")
        axis.set_ylabel(f"{metric} [{unit}]" if unit else metric)
        if drawn.min() > 0 and drawn.max() > 100 * drawn.min():
            axis.set_yscale("log")
        axis.grid(alpha=0.3)
        axis.legend()
    return figure
