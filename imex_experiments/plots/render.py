"""Render a matplotlib figure to pixels."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from imex_experiments.plots.sheet import Pixels


def render(figure: Figure) -> Pixels:
    """Return the pixels of a figure, (H, W, 3) uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
