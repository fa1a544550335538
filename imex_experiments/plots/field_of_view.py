"""Maps of energy over the pixels of an image: impulse responses and receptive fields."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import NDArray
from PIL import Image

from imex_experiments.plots.curves import COLOURS, STYLES
from imex_experiments.plots.render import render

Values = NDArray[np.floating]

DECADES = 6
"""Decades of the logarithmic colour scale, down from the largest energy."""


@dataclass(frozen=True)
class EnergyMap:
    """Energies (H, W), and the radius in pixels of a circle about the middle, if any."""

    title: str
    energy: Values
    radius: float | None = None


def panels_figure(rows: Mapping[str, Sequence[EnergyMap]]) -> Figure:
    """Draw one row of maps per network; the colour is log10 (energy / its maximum)."""
    columns = max(map(len, rows.values()))
    size = (1.9 * columns + 1.4, 2.15 * len(rows) + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, (name, panels) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(f"{name}\nrow [px]", fontsize=8)
        for axis, panel in zip(line, panels, strict=False):
            energy = panel.energy / max(panel.energy.max(), np.finfo(float).tiny)
            image = axis.imshow(
                np.log10(np.maximum(energy, 10.0**-DECADES)),
                cmap="cividis",
                vmin=-DECADES,
                vmax=0,
            )
            if panel.radius is not None:
                middle = (energy.shape[1] // 2, energy.shape[0] // 2)
                ring = Circle(middle, panel.radius, fill=False, color="white", ls="--")
                axis.add_patch(ring)
            axis.set_title(panel.title, fontsize=8)
            axis.tick_params(labelsize=6)
        for axis in line[len(panels) :]:
            axis.set_visible(False)
    if any(panel.radius is not None for panels in rows.values() for panel in panels):
        figure.suptitle("dashed: radius that holds 95 % of the energy", fontsize=9)
    figure.supxlabel("column [px]", fontsize=9)
    figure.colorbar(image, ax=axes, label="log10 energy / maximum", shrink=0.7)
    return figure


def share_figure(curves: Mapping[str, tuple[Values, Values]], pixels: float) -> Figure:
    """Draw the share of the energy beyond a distance in pixels over time, (N,).

    `curves[name]` are times (N,) and shares (seeds, N). A line shows the mean over the
    seeds, a band their range.
    """
    figure = Figure(figsize=(5.4, 3.6), layout="constrained")
    axis = figure.subplots()
    for index, (name, (times, shares)) in enumerate(curves.items()):
        colour = COLOURS[index % 6]
        axis.plot(
            times,
            shares.mean(0),
            STYLES[index % 4],
            marker=".",
            color=colour,
            label=name,
        )
        axis.fill_between(times, shares.min(0), shares.max(0), color=colour, alpha=0.2)
    axis.set_yscale("symlog", linthresh=1e-6)
    axis.set_ylim(0, 1)
    axis.set_xlabel("time t [1]")
    axis.set_ylabel(f"share of energy beyond {pixels:g} px [1]")
    axis.grid(alpha=0.3)
    axis.legend(
        title="mean, range over seeds",
        fontsize=8,
        loc="lower left",
        bbox_to_anchor=(0, 1.01),
    )
    return figure


def save_animation(
    frames: Sequence[Figure], path: Path, milliseconds: int = 250
) -> None:
    """Save figures of one size as a GIF that loops and shows the last frame longer."""
    images = [Image.fromarray(render(figure)).quantize(64) for figure in frames]
    durations = [milliseconds] * (len(images) - 1) + [6 * milliseconds]
    images[0].save(
        path, save_all=True, append_images=images[1:], duration=durations, loop=0
    )
