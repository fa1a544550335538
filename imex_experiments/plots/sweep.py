"""Figures of a sweep: heat maps over alpha and h, curves with bands, score against cost."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
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


def heat_map_figure(cells: pd.DataFrame, metric: str, columns: int = 4) -> Figure:
    """Draw one panel per title on one colour scale; lost runs are hatched and counted.

    `cells` has a row per setting: its panel's title, alpha (0 alone for a model without
    L), h, the mean over seeds (NaN where none finished), how many runs are lost, and
    whether it is chosen, to be framed.
    """
    panels = cells.groupby("title", sort=False)
    rows, wide = -(-len(panels) // columns), min(len(panels), columns)
    tallest, widest = panels["alpha"].nunique().max(), panels["h"].nunique().max()
    size = (wide * (0.9 + CELL * widest) + 1.3, rows * (1.1 + CELL * tallest) + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, wide, squeeze=False).flatten()
    scale = Normalize(cells["mean"].min(), cells["mean"].max())
    colours = colormaps[COLOUR_MAP].with_extremes(bad=MISSING)
    for axis, (title, own) in zip(axes, panels, strict=False):
        _draw_map(axis, own, colours, scale)
        axis.set_title(title, fontsize="medium")
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    bar = ScalarMappable(scale, colours)
    figure.colorbar(bar, ax=list(axes), label=f"{metric}, mean over seeds", pad=0.02)
    frame = Patch(facecolor="none", edgecolor=FRAME, linewidth=3)
    legend = {"setting chosen on validation": frame}
    if cells["lost"].any():
        hatched = Patch(facecolor="white", edgecolor="black", hatch=HATCH)
        legend["runs failed or diverged"] = hatched
    figure.legend(legend.values(), legend.keys(), loc="outside lower center", ncols=2)
    return figure


def learning_curves_figure(
    curves: pd.DataFrame, metric: str, levels: Mapping[str, float] | None = None
) -> Figure:
    """Draw a line for each mean and a band of one standard deviation to both sides.

    `curves` has a row per curve (its title) and epoch, with mean and sd over the runs.
    `levels` are values to compare with, name to value, drawn across.
    """
    figure = Figure(figsize=(5.6, 3.8), layout="constrained")
    axis = figure.subplots()
    for index, (title, curve) in enumerate(curves.groupby("curve", sort=False)):
        colour, style = COLOURS[index % 6], STYLES[index // 6 % 4]
        epochs, mean, sd = (curve[name].to_numpy() for name in ("epoch", "mean", "sd"))
        axis.plot(epochs, mean, style, color=colour, label=title)
        band = mean - sd, mean + sd
        axis.fill_between(epochs, *band, color=colour, alpha=0.2, linewidth=0)
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
    """Draw score against each cost, a panel per cost, with Pareto front and `levels`.

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
    """Return the points that no other beats: cheaper or equal, and better or equal.

    They are indices, in the order of rising cost; score is better when higher. Of equal
    points one is kept.
    """
    order = np.lexsort((-score, cost))
    front: list[int] = []
    for index in order:
        if not front or score[index] > score[front[-1]]:
            front.append(int(index))
    return front


def _draw_levels(axis: Axes, levels: Mapping[str, float] | None) -> None:
    """Draw thin lines across, named at their right ends."""
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


def _draw_map(
    axis: Axes, cells: pd.DataFrame, colours: Colormap, scale: Normalize
) -> None:
    """Draw the means over alpha and h, each with its number and what is lost of it."""
    means = cells.pivot(index="alpha", columns="h", values="mean")
    axis.imshow(means.to_numpy(), colours, scale, aspect="auto", origin="lower")
    for cell in cells.itertuples():
        row, column = means.index.get_loc(cell.alpha), means.columns.get_loc(cell.h)
        known = bool(np.isfinite(cell.mean))
        red, green, blue, _ = colours(scale(cell.mean)) if known else (1, 1, 1, 1)
        ink = "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"
        if cell.lost:
            axis.add_patch(_cell(row, column, hatch=HATCH, color=ink, alpha=0.4))
        if cell.chosen:
            style = {"color": FRAME, "linewidth": 3, "zorder": 4, "clip_on": False}
            axis.add_patch(_cell(row, column, **style))
        lines = [f"{cell.mean:.3f}"] if known else []
        lines += [f"{cell.lost} lost"] if cell.lost else []
        text = "\n".join(lines)
        axis.text(column, row, text, ha="center", va="center", color=ink, fontsize=9)
    alphas = [f"{alpha:g}" for alpha in means.index] if any(means.index) else []
    axis.set_xticks(range(len(means.columns)), [f"{h:g}" for h in means.columns])
    axis.set_yticks(range(len(alphas)), alphas)
    axis.set_xlabel("h")
    axis.set_ylabel("alpha" if alphas else "no alpha")


def _cell(row: int, column: int, **style: Any) -> Rectangle:
    return Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, **style)


def _log_scale(axis: Axes, values: Floats) -> None:
    """Set a logarithmic scale with a few readable ticks, even on less than a decade."""
    axis.set_xscale("log")
    few = values.max() < 5 * values.min()
    axis.xaxis.set_major_locator(MaxNLocator(4) if few else LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.margins(x=0.1)
