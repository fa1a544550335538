"""Figure of the run time of layers, and of its growth with the size of the image."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from imex_experiments.plots.curves import COLOURS

DIRECTION = "forward and backward"
SHOWN = ("IMEX block", "solve", "Algorithm 1", "depthwise 3x3", "depthwise 31x31")


def costs_figure(
    shapes: Sequence[Mapping[str, Any]],
    growth: Mapping[str, Sequence[Mapping[str, float]]],
) -> Figure:
    """Draw the times of layers relative to a ResNet block, and of a solve over the side.

    `shapes[i]` holds "shape", and under the direction and the name of a layer its "median"
    and "spread" in seconds. `growth[backend]` is a list of points with "side" in pixels,
    "median" and "spread" in seconds.
    """
    figure = Figure(figsize=(11, 4), layout="constrained")
    ratios, growing = figure.subplots(1, 2)
    _draw_ratios(ratios, [s[DIRECTION] for s in shapes])
    names = ["x".join(map(str, s["shape"])) for s in shapes]
    ratios.set_xticks(range(len(shapes)), names, rotation=20)
    _draw_growth(growing, growth)
    return figure


def _draw_ratios(axes: Axes, times: Sequence[Mapping[str, Any]]) -> None:
    """Draw a group of bars per shape; `times[i]` holds "median" and "spread" by layer."""
    shown = [name for name in SHOWN if all(name in layers for layers in times)]
    width, middle = 0.8 / len(shown), (len(shown) - 1) / 2
    base = np.array([layers["ResNet block"]["median"] for layers in times])
    for index, name in enumerate(shown):
        median, spread = (
            np.array([layers[name][key] for layers in times]) / base
            for key in ("median", "spread")
        )
        places = np.arange(len(times)) + (index - middle) * width
        axes.bar(places, median, width, yerr=spread, color=COLOURS[index], label=name)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_yscale("log")
    axes.set_xlabel("batch x channels x height x width")
    axes.set_ylabel("time / time of a ResNet block [1]")
    axes.legend(
        fontsize="small", ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0)
    )


def _draw_growth(
    axes: Axes, growth: Mapping[str, Sequence[Mapping[str, float]]]
) -> None:
    """Draw a line per backend, and the law of the FFT."""
    for (backend, points), marker, colour in zip(
        growth.items(), "os^", COLOURS, strict=False
    ):
        sides = np.array([p["side"] for p in points])
        milliseconds = 1e3 * np.array([p["median"] for p in points])
        axes.loglog(sides, milliseconds, marker + "-", color=colour, label=backend)
        if backend == "fft":
            law = sides**2 * np.log2(sides)
            law *= milliseconds[-1] / law[-1]
            axes.loglog(sides, law, "k:", label="n² log n, through the last point")
    axes.set_xticks(sides, [str(side) for side in sides])
    axes.minorticks_off()
    axes.set_xlabel("side n of the image [pixels]")
    axes.set_ylabel(f"a solve, {DIRECTION} [ms]")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
