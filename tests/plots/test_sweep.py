"""Figures of sweeps: what they draw is what they were given."""

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from imex_experiments.plots.sweep import (
    cost_figure,
    heat_map_figure,
    learning_curves_figure,
    pareto_front,
)


def drawn(figure: Figure) -> np.ndarray:
    """The figure as pixels; fails if it cannot be laid out."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def test_heat_map_annotates_means_hatches_lost_runs_and_frames_the_choice() -> None:
    nan = float("nan")
    rows = [
        ("imexnet", 1.0, 0.5, 0.25, 0, False),
        ("imexnet", 1.0, 1.0, 0.5, 2, False),
        ("imexnet", 10.0, 0.5, 0.75, 0, True),
        ("imexnet", 10.0, 1.0, nan, 3, False),
        ("resnet", 0.0, 0.5, 0.0, 0, False),
        ("resnet", 0.0, 1.0, 1.0, 0, False),
    ]
    names = ["title", "alpha", "h", "mean", "lost", "chosen"]
    figure = heat_map_figure(pd.DataFrame(rows, columns=names), "test/miou")
    implicit, explicit, bar = figure.axes
    texts = {text.get_text() for text in implicit.texts}
    assert texts == {"0.250", "0.500\n2 lost", "0.750", "3 lost"}
    cells = [patch for patch in implicit.patches if isinstance(patch, Rectangle)]
    hatched = {cell.get_xy() for cell in cells if cell.get_hatch()}
    assert hatched == {(0.5, -0.5), (0.5, 0.5)}
    (frame,) = [cell for cell in cells if not cell.get_hatch()]
    assert frame.get_xy() == (-0.5, 0.5)
    assert [t.get_text() for t in implicit.get_yticklabels()] == ["1", "10"]
    assert explicit.get_ylabel() == "no alpha"
    assert "test/miou" in bar.get_ylabel()
    for axis in (implicit, explicit):  # one colour means one number in all maps
        (image,) = axis.images
        assert image.get_clim() == (0.0, 1.0)
        assert image.get_cmap() == colormaps["viridis"].with_extremes(bad="#d9d9d9")
    assert drawn(figure).std() > 0


def test_learning_curve_is_a_mean_within_one_standard_deviation() -> None:
    epochs, mean, sd = np.array([1.0, 2.0]), np.array([0.3, 0.5]), np.array([0.1, 0.2])
    curve = {"curve": "imexnet", "epoch": epochs, "mean": mean, "sd": sd}
    figure = learning_curves_figure(pd.DataFrame(curve), "val/miou")
    (axis,) = figure.axes
    (line,) = axis.lines
    assert (line.get_ydata() == mean).all()
    corners = {tuple(v) for v in axis.collections[0].get_paths()[0].vertices.round(9)}
    assert {(1.0, 0.2), (1.0, 0.4), (2.0, 0.3), (2.0, 0.7)} <= corners
    assert drawn(figure).std() > 0


def test_cost_panels_have_log_axes_and_their_own_fronts() -> None:
    scores = pd.DataFrame(
        {
            "model": ["imexnet", "resnet", "unet"],
            "parameters": [100.0, 50.0, 200.0],
            "seconds": [20.0, 10.0, 5.0],
            "mean": [0.9, 0.5, 0.8],
            "sd": [0.1, np.nan, 0.1],
        }
    )
    costs = ["parameters", "seconds"]
    figure = cost_figure(scores, costs, "test/miou", higher_is_better=True)
    fronts = {}
    for axis in figure.axes:
        assert axis.get_xscale() == "log"
        (front,) = [line for line in axis.lines if line.get_label() == "Pareto front"]
        fronts[axis.get_xlabel()] = list(zip(*front.get_data(), strict=True))
    assert fronts == {
        "parameters": [(50.0, 0.5), (100.0, 0.9), (200.0, 0.9)],
        "seconds": [(5.0, 0.8), (20.0, 0.9), (20.0, 0.9)],
    }
    assert drawn(figure).std() > 0


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1))
def test_front_is_what_no_other_point_beats(points: list[tuple[int, int]]) -> None:
    cost, score = np.array(points, dtype=float).T
    front = [points[index] for index in pareto_front(cost, score)]
    unbeaten = {
        (c, s)
        for c, s in points
        if not any(a <= c and b >= s and (a, b) != (c, s) for a, b in points)
    }
    assert front == sorted(unbeaten)
