"""Draw a sheet of panels: one row per sample, one column per title, legends below.

Shapes: panels (H, W, 3) uint8, all of one size. A sheet is drawn as pixels, without
matplotlib's figures, because every validation draws one and a figure takes longer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]

_HEX = "000000 e69f00 56b4e9 009e73 f0e442 0072b2 d55e00 cc79a7"
PALETTE = np.frombuffer(bytes.fromhex(_HEX), dtype=np.uint8).reshape(-1, 3)
"""Okabe and Ito's colours, distinct for colour-blind readers; the first is black."""

PANEL = 128
MARGIN = 6
LINE = 22
BAR = 128
NARROWEST = 320
"""Minimum width of a sheet in pixels, so that the legends fit below one column."""


class Legend(Protocol):
    """A legend in the bottom line of a sheet."""

    def draw(self, sheet: Image.Image, x: int, y: int) -> int:
        """Draw the legend with its upper left corner at (x, y); return its width."""


@dataclass(frozen=True)
class Swatches:
    """A legend with one colour of the palette per name."""

    names: Sequence[str]

    def draw(self, sheet: Image.Image, x: int, y: int) -> int:
        draw, start = ImageDraw.Draw(sheet), x
        for name, colour in zip(self.names, _colours(len(self.names)), strict=True):
            draw.rectangle((x, y, x + 12, y + 12), fill=colour, outline="grey")
            x += 18 + _write(draw, x + 18, y - 2, name) + 12
        return x - start


@dataclass(frozen=True)
class ColourBar:
    """A continuous colour scale from `low` to `high`, readable for the colour-blind."""

    name: str
    low: float
    high: float
    colour_map: str = "cividis"
    unit: str = ""

    def colours(self, values: NDArray[np.floating]) -> Pixels:
        """Return values (...) as colours (..., 3), clipped to the scale."""
        span = max(self.high - self.low, 1e-12)
        index = np.clip((values - self.low) / span, 0, 1) * 255
        return self._ramp()[np.nan_to_num(index).round().astype(np.uint8)]

    def draw(self, sheet: Image.Image, x: int, y: int) -> int:
        draw, start = ImageDraw.Draw(sheet), x
        x += _write(draw, x, y - 2, f"{self.name} {self.low:g}") + 6
        bar = np.broadcast_to(self._ramp()[:: 256 // BAR], (12, BAR, 3))
        sheet.paste(Image.fromarray(bar.copy()), (x, y))
        x += BAR + 6
        return x + _write(draw, x, y - 2, f"{self.high:g} {self.unit}".strip()) - start

    def _ramp(self) -> Pixels:
        """Return the 256 colours of the scale, (256, 3)."""
        colours = matplotlib.colormaps[self.colour_map](np.linspace(0, 1, 256))
        return (colours[:, :3] * 255).round().astype(np.uint8)


def as_rgb(image: Pixels) -> Pixels:
    """Return an image (1 or 3, H, W) as (H, W, 3)."""
    return np.broadcast_to(image, (3, *image.shape[1:])).transpose(1, 2, 0)


def draw_sheet(
    rows: Sequence[Sequence[Pixels]], titles: Sequence[str], legends: Sequence[Legend]
) -> Pixels:
    """Draw all rows under their titles, (height, width, 3); enlarge small panels."""
    height, width = rows[0][0].shape[:2]
    zoom = max(1, round(PANEL / max(height, width)))
    step_x, step_y = width * zoom + MARGIN, height * zoom + MARGIN
    wide = max(NARROWEST, MARGIN + step_x * len(titles))
    size = (wide, 2 * LINE + MARGIN + step_y * len(rows))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for j, title in enumerate(titles):
        _write(draw, MARGIN + j * step_x, 3, title)
    for i, row in enumerate(rows):
        for j, panel in enumerate(row):
            picture = Image.fromarray(np.ascontiguousarray(panel))
            larger = (width * zoom, height * zoom)
            picture = picture.resize(larger, Image.Resampling.NEAREST)
            sheet.paste(picture, (MARGIN + j * step_x, LINE + i * step_y))
    x = MARGIN
    for legend in legends:
        x += legend.draw(sheet, x, sheet.height - LINE) + 4 * MARGIN
    return np.asarray(sheet)


def _colours(number: int) -> list[tuple[int, ...]]:
    return [tuple(int(c) for c in PALETTE[i % len(PALETTE)]) for i in range(number)]


def _write(draw: ImageDraw.ImageDraw, x: int, y: int, text: str) -> int:
    """Write a line of text, and return its width in pixels."""
    font = ImageFont.load_default(size=13)
    draw.text((x, y), text, fill="black", font=font)
    return round(draw.textlength(text, font=font))
