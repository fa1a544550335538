"""Figures of a sweep: heat maps over alpha and h, curves with bands, score against cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from imex_experiments.plots.curves import COLOURS, STYLES

Floats = NDArray[np.floating]

COLOUR_MAP = "viridis"
MISSING = "#d9d9d9"
FRAME = COLOURS[1]
HATCH = "///"
MARKERS = "osD^vPX"
CELL = 0.8
"""Inches."""


@dataclass(frozen=True)
class HeatMap:
    """Means over seeds, (A, H) for A values of alpha and H of h; NaN where none finished.

    `lost` (A, H) counts the runs without a result. `alpha` is empty for a model without
    L, whose map has one row. `chosen` is the cell (row, column) to be framed.
    """

    title: str
    alpha: Sequence[float]
    h: Sequence[float]
    mean: Floats
    lost: NDArray[np.integer]
    chosen: tuple[int, int] | None = None


@dataclass(frozen=True)
class Band:
    """Mean and standard deviation over runs at some epochs, all of shape (E,)."""

    title: str
    epochs: Floats
    mean: Floats
    sd: Floats


def heat_map_figure(maps: Sequence[HeatMap], metric: str, columns: int = 4) -> Figure:
    """One panel per map on one colour scale; cells with lost runs are hatched and counted."""
    rows = -(-len(maps) // columns)
    wide = min(len(maps), columns)
    tallest = max(len(panel.mean) for panel in maps)
    widest = max(panel.mean.shape[1] for panel in maps)
    size = (wide * (0.9 + CELL * widest) + 1.3, rows * (1.1 + CELL * tallest) + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, wide, squeeze=False).flatten()
    known = np.concatenate([panel.mean[np.isfinite(panel.mean)] for panel in maps])
    scale = Normalize(known.min(), known.max())
    colour_map = colormaps[COLOUR_MAP].with_extremes(bad=MISSING)
    for axis, panel in zip(axes, maps, strict=False):
        image = axis.imshow(
            panel.mean, colour_map, scale, aspect="auto", origin="lower"
        )
        _label(axis, panel)
        _annotate(axis, panel, colour_map, scale)
    for axis in axes[len(maps) :]:
        axis.set_visible(False)
    figure.colorbar(image, ax=list(axes), label=f"{metric}, mean over seeds", pad=0.02)
    frame = Patch(facecolor="none", edgecolor=FRAME, linewidth=3)
    legend = {"setting chosen on validation": frame}
    if any(panel.lost.any() for panel in maps):
        hatched = Patch(facecolor="white", edgecolor="black", hatch=HATCH)
        legend["runs failed or diverged"] = hatched
    figure.legend(legend.values(), legend.keys(), loc="outside lower center", ncols=2)
    return figure


def learning_curves_figure(
    bands: Sequence[Band], metric: str, levels: Mapping[str, float] | None = None
) -> Figure:
    """A line for each mean and a band of one standard deviation to both sides.

    `levels` are values to compare with, name to value, drawn across.
    """
    figure = Figure(figsize=(5.6, 3.8), layout="constrained")
    axis = figure.subplots()
    for index, band in enumerate(bands):
        colour, style = COLOURS[index % 6], STYLES[index // 6 % 4]
        axis.plot(band.epochs, band.mean, style, color=colour, label=band.title)
        low, high = band.mean - band.sd, band.mean + band.sd
        axis.fill_between(band.epochs, low, high, color=colour, alpha=0.2, linewidth=0)
    _draw_levels(axis, levels)
    axis.set_xlabel("epoch")
    axis.set_ylabel(f"{metric}, mean ± sd over seeds")
    axis.grid(alpha=0.3)
    axis.legend()
    return figure


def cost_figure(
    scores: pd.DataFrame,
    costs: Sequence[str],
    metric: str,
    higher_is_better: bool,
    levels: Mapping[str, float] | None = None,
) -> Figure:
    """Score against each cost, one panel per cost, with its Pareto front and `levels`.

    `scores` has a row per setting: its model, the mean and sd of its score (NaN for one
    run), and the columns named in `costs`.
    """
    figure = Figure(figsize=(4.0 * len(costs), 3.9), layout="constrained")
    axes = figure.subplots(1, len(costs), sharey=True, squeeze=False)[0]
    y = scores["mean"].to_numpy()
    for axis, cost in zip(axes, costs, strict=True):
        for index, (model, own) in enumerate(scores.groupby("model", sort=False)):
            axis.errorbar(
                own[cost],
                own["mean"],
                own["sd"],
                fmt=MARKERS[index % 7],
                color=COLOURS[index % 6],
                alpha=0.75,
                capsize=2,
                label=model,
            )
        x = scores[cost].to_numpy()
        front = pareto_front(x, y if higher_is_better else -y)
        best = np.append(x[front], x.max()), np.append(y[front], y[front[-1]])
        axis.plot(*best, "k--", drawstyle="steps-post", label="Pareto front", zorder=1)
        _draw_levels(axis, levels)
        _log_scale(axis, x)
        axis.set_xlabel(cost)
        axis.grid(alpha=0.3, which="both")
    axes[0].set_ylabel(f"{metric}, mean ± sd over seeds")
    handles, labels = axes[0].get_legend_handles_labels()
    columns = min(len(handles), 5)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)
    return figure


def pareto_front(cost: Floats, score: Floats) -> list[int]:
    """Indices of the points that no other beats: cheaper or equal, and better or equal.

    In the order of rising cost; score is better when higher. Of equal points one is kept.
    """
    order = np.lexsort((-score, cost))
    front: list[int] = []
    for index in order:
        if not front or score[index] > score[front[-1]]:
            front.append(int(index))
    return front


def _draw_levels(axis: Axes, levels: Mapping[str, float] | None) -> None:
    """Thin lines across, named at their right ends."""
    for name, value in (levels or {}).items():
        axis.axhline(value, color="black", linestyle=":", linewidth=0.9, zorder=1)
        axis.annotate(
            name,
            (1, value),
            (-2, 2),
            xycoords=axis.get_yaxis_transform(),
            textcoords="offset points",
            ha="right",
            fontsize=8,
        )


def _label(axis: Axes, panel: HeatMap) -> None:
    axis.set_title(panel.title, fontsize="medium")
    axis.set_xticks(range(len(panel.h)), [f"{h:g}" for h in panel.h])
    axis.set_yticks(range(len(panel.alpha)), [f"{a:g}" for a in panel.alpha])
    axis.set_xlabel("h")
    axis.set_ylabel("alpha" if panel.alpha else "no alpha")


def _annotate(axis: Axes, panel: HeatMap, colours: Colormap, scale: Normalize) -> None:
    for (row, column), mean in np.ndenumerate(panel.mean):
        known, lost = np.isfinite(mean), int(panel.lost[row, column])
        red, green, blue, _ = colours(scale(mean)) if known else (1, 1, 1, 1)
        ink = "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"
        if lost:
            axis.add_patch(_cell(row, column, hatch=HATCH, color=ink, alpha=0.4))
        lines = [f"{mean:.3f}"] * bool(known) + [f"{lost} lost"] * bool(lost)
        text = "\n".join(lines)
        axis.text(column, row, text, ha="center", va="center", color=ink, fontsize=9)
    if panel.chosen:
        axis.add_patch(
            _cell(*panel.chosen, color=FRAME, linewidth=3, zorder=4, clip_on=False)
        )


def _cell(row: int, column: int, **style: Any) -> Rectangle:
    return Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, **style)


def _log_scale(axis: Axes, values: Floats) -> None:
    """A logarithmic scale with a few readable ticks, even on less than a decade."""
    axis.set_xscale("log")
    few = values.max() < 5 * values.min()
    axis.xaxis.set_major_locator(MaxNLocator(4) if few else LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.margins(x=0.1)
