"""Figures of linear stability: trajectories, spectral radii, regions of stability."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from imex_experiments.plots.curves import COLOURS, STYLES

Values = NDArray[np.floating]

MARKERS = "ox+v^s"


def trajectory_figure(paths: Mapping[str, Values], h: float) -> Figure:
    """Draw the states (N, 2) of each scheme in the plane, one panel per scheme.

    The unit circle, the exact solution of the rotation, is grey.
    """
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
    """Draw the spectral radius of each scheme over the step size; 1 is neutral."""
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
    """Draw one panel per scheme, with the stability region |R(z)| <= 1 shaded.

    `regions[name]` holds |R(re + i im)|, (len(im), len(re)).
    """
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


def theorem_figure(
    alphas: Values, h: float, spectra: Mapping[str, NDArray[np.complexfloating]]
) -> Figure:
    """Draw the eigenvalues lambda that an IMEX step does not amplify, and given spectra.

    With L = alpha I they fill the disc |1 + h lambda / (1 + h alpha)| <= 1, which has its
    centre at -(alpha + 1/h) and touches 0.
    """
    figure = Figure(figsize=(5.6, 4.6), layout="constrained")
    axis = figure.subplots()
    angle = np.linspace(0, 2 * np.pi, 200)
    for index, alpha in enumerate(alphas):
        r = alpha + 1 / h
        style, colour = STYLES[index % 4], COLOURS[index % 6]
        axis.plot(
            r * (np.cos(angle) - 1),
            r * np.sin(angle),
            style,
            color=colour,
            label=f"alpha = {alpha:g}",
        )
    for marker, (name, values) in zip(MARKERS, spectra.items(), strict=False):
        axis.plot(values.real, values.imag, marker, color="black", ms=4, label=name)
    axis.axvline(0, color="grey", linewidth=0.5)
    axis.set_aspect("equal")
    axis.set_xlabel(f"Re lambda [1 / time], h = {h:g}")
    axis.set_ylabel("Im lambda [1 / time]")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return figure


def part_growth_figure(paths: Mapping[str, tuple[Sequence[str], Values]]) -> Figure:
    """Draw |delta Y| after each part of a network, relative to |delta image|.

    `paths[network]` are the names of the parts and the sizes (parts,).
    """
    figure = Figure(figsize=(6, 3.8), layout="constrained")
    axis = figure.subplots()
    for index, (name, (parts, sizes)) in enumerate(paths.items()):
        places = np.arange(len(sizes))
        style = STYLES[index % 4]
        axis.plot(places, sizes, "o" + style, color=COLOURS[index % 6], label=name)
        axis.set_xticks(places, parts, rotation=30, ha="right", fontsize=8)
    axis.axhline(1, color="grey", linewidth=0.8)
    axis.set_yscale("log")
    axis.set_ylabel("|delta Y| / |delta image| [1]")
    axis.grid(alpha=0.3)
    axis.legend()
    return figure


def atlas_figure(
    alphas: Values, hs: Values, growth: Values, limit: Values, explicit: float
) -> Figure:
    """Draw log10 of the growth of a change over alpha and h, and the limits on h.

    `growth` is (len(hs), len(alphas)), `limit` (len(alphas),) the largest h by Theorem 1,
    `explicit` the largest h of the explicit step.
    """
    figure = Figure(figsize=(5.6, 4.2), layout="constrained")
    axis = figure.subplots()
    with np.errstate(divide="ignore", over="ignore"):
        colours = np.clip(np.nan_to_num(np.log10(growth), nan=3, posinf=3), -3, 3)
    image = axis.pcolormesh(alphas, hs, colours, cmap="cividis", vmin=-3, vmax=3)
    figure.colorbar(image, label="log10 growth of a change, clipped [1]")
    axis.plot(alphas, limit, "-", color="white", label="limit of Theorem 1")
    axis.axhline(
        explicit, ls="--", color="white", label=f"explicit, h = {explicit:.2g}"
    )
    axis.set_yscale("log")
    axis.set_ylim(hs.min(), hs.max())
    axis.set_xlabel("alpha [1 / time]")
    axis.set_ylabel("h [time]")
    axis.legend(facecolor="#404040", labelcolor="white", fontsize=8)
    return figure
