"""Figure of the run time of layers, and of its growth with the size of the image."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
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
    places = np.arange(len(shapes))
    shown = [name for name in SHOWN if all(name in s[DIRECTION] for s in shapes)]
    width = 0.8 / len(shown)
    for index, name in enumerate(shown):
        base = np.array([s[DIRECTION]["ResNet block"]["median"] for s in shapes])
        median, spread = (
            np.array([s[DIRECTION][name][key] for s in shapes]) / base
            for key in ("median", "spread")
        )
        ratios.bar(
            places + (index - (len(shown) - 1) / 2) * width,
            median,
            width,
            yerr=spread,
            color=COLOURS[index],
            label=name,
        )
    ratios.axhline(1, color="black", linewidth=0.8)
    ratios.set_yscale("log")
    ratios.set_xticks(
        places, ["x".join(map(str, s["shape"])) for s in shapes], rotation=20
    )
    ratios.set_xlabel("batch x channels x height x width")
    ratios.set_ylabel("time / time of a ResNet block [1]")
    ratios.legend(
        fontsize="small", ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0)
    )
    for (backend, points), marker, colour in zip(
        growth.items(), "os^", COLOURS, strict=False
    ):
        sides = np.array([p["side"] for p in points])
        milliseconds = 1e3 * np.array([p["median"] for p in points])
        growing.loglog(sides, milliseconds, marker + "-", color=colour, label=backend)
        if backend == "fft":
            law = sides**2 * np.log2(sides)
            growing.loglog(
                sides,
                law * milliseconds[-1] / law[-1],
                "k:",
                label="n² log n, through the last point",
            )
    growing.set_xticks(sides, [str(side) for side in sides])
    growing.minorticks_off()
    growing.set_xlabel("side n of the image [pixels]")
    growing.set_ylabel(f"a solve, {DIRECTION} [ms]")
    growing.grid(alpha=0.3)
    growing.legend(fontsize="small")
    return figure
