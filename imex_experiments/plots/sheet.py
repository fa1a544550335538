"""Draw a sheet of panels: one row per sample, one column per title, legends below.

Shapes: panels (H, W, 3) uint8, all of one size. A sheet is drawn as pixels, without
matplotlib's figures, because every validation draws one and a figure takes longer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]

_HEX = (
    "000000 e69f00 56b4e9 009e73 f0e442 0072b2 d55e00 cc79a7 "
    "e6194b 46f0f0 bfef45 911eb4 aa6e28 fabebe 000080 008080 "
    "fffac8 808000 aaffc3 f032e6 dcbeff 800000 ffd8b1 4363d8"
)
PALETTE = np.frombuffer(bytes.fromhex(_HEX), dtype=np.uint8).reshape(-1, 3)
"""Okabe and Ito's eight colours, distinct for colour-blind readers, of which the first is
black; then 16 more."""

NEUTRAL = np.array([128, 128, 128], dtype=np.uint8)
"""The colour of pixels that do not count: grey, which the palette does not have."""

PANEL = 128
MARGIN = 6
LINE = 22
BAR = 128
TEXT = 13
NARROWEST = 320
"""Minimum width of a sheet in pixels, so that the legends fit below one column."""

WIDEST = 2400
LARGEST = 640
"""Width of a sheet, and longest side of a panel, to which large panels are shrunk."""

READABLE = 9
"""Smallest size of a text that is shrunk to fit above its column."""


class Legend(Protocol):
    """A legend below the panels of a sheet."""

    def pictures(self, text: int) -> list[Image.Image]:
        """Return the parts of the legend, one line high, for a text of a size."""


@dataclass(frozen=True)
class Swatches:
    """A legend with one colour per name: that of the palette, or grey for `neutral`."""

    names: Sequence[str]
    neutral: str | None = None

    def pictures(self, text: int) -> list[Image.Image]:
        colours = [PALETTE[i % len(PALETTE)] for i in range(len(self.names))]
        named = list(zip(self.names, colours, strict=True))
        if self.neutral is not None:
            named.append((self.neutral, NEUTRAL))
        return [_line([_block(colour, text), name], text) for name, colour in named]


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

    def pictures(self, text: int) -> list[Image.Image]:
        ramp = np.broadcast_to(self._ramp()[:: 256 // BAR], (text, BAR, 3))
        bar = Image.fromarray(ramp.copy())
        ends = f"{self.name} {self.low:g}", f"{self.high:g} {self.unit}".strip()
        return [_line([ends[0], bar, ends[1]], text)]

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
    """Draw all rows under their titles, (height, width, 3).

    Small panels are enlarged, and large ones are shrunk, so that the sheet is at most
    WIDEST pixels wide. The text grows with the sheet, and a title is fitted to its column.
    """
    columns = len(titles)
    tall, broad = rows[0][0].shape[:2]
    width, height = _panel_size(tall, broad, columns)
    step_x = width + MARGIN
    wide = max(NARROWEST, MARGIN + step_x * columns)
    text = min(2 * TEXT, max(TEXT, round(TEXT * wide / 1000)))
    line, step_y = round(LINE * text / TEXT), height + MARGIN
    parts = [part for legend in legends for part in legend.pictures(text)]
    lines = _flowed(parts, wide - 2 * MARGIN)
    below = line + MARGIN + step_y * len(rows)
    sheet = Image.new("RGB", (wide, below + line * len(lines)), "white")
    draw = ImageDraw.Draw(sheet)
    for j, title in enumerate(titles):
        size, shown = _fitted(title, text, step_x)
        draw.text((MARGIN + j * step_x, 3), shown, fill="black", font=_font(size))
    for i, row in enumerate(rows):
        for j, panel in enumerate(row):
            picture = Image.fromarray(np.ascontiguousarray(panel))
            smaller = picture.width > width
            way = Image.Resampling.BOX if smaller else Image.Resampling.NEAREST
            picture = picture.resize((width, height), way)
            sheet.paste(picture, (MARGIN + j * step_x, line + i * step_y))
    for n, line_parts in enumerate(lines):
        x = MARGIN
        for part in line_parts:
            sheet.paste(part, (x, below + n * line))
            x += part.width
    return np.asarray(sheet)


def _panel_size(height: int, width: int, columns: int) -> tuple[int, int]:
    """Return width and height at which a panel is drawn."""
    longest = max(height, width)
    most = min(LARGEST, max(PANEL, (WIDEST - MARGIN) // columns - MARGIN))
    zoom = most / longest if longest > most else max(1, round(PANEL / longest))
    return max(1, round(width * zoom)), max(1, round(height * zoom))


def _flowed(parts: Sequence[Image.Image], wide: int) -> list[list[Image.Image]]:
    """Return pictures in lines of at most a width."""
    lines: list[list[Image.Image]] = [[]]
    for part in parts:
        if lines[-1] and sum(p.width for p in lines[-1]) + part.width > wide:
            lines.append([])
        lines[-1].append(part)
    return lines


def _font(size: int) -> Any:
    return ImageFont.load_default(size=size)


def _fitted(title: str, size: int, width: int) -> tuple[int, str]:
    """Return the size at which a title fits a width, and the title, cut if none does."""
    while size > READABLE and _font(size).getlength(title) > width:
        size -= 1
    if _font(size).getlength(title) <= width:
        return size, title
    while len(title) > 1 and _font(size).getlength(f"{title}...") > width:
        title = title[:-1]
    return size, f"{title}..."


def _block(colour: Pixels, text: int) -> Image.Image:
    block = Image.new("RGB", (text, text), tuple(int(c) for c in colour))
    ImageDraw.Draw(block).rectangle((0, 0, text - 1, text - 1), outline="grey")
    return block


def _line(parts: Sequence[Image.Image | str], text: int) -> Image.Image:
    """Return pictures and texts beside each other, one line high, with a gap after them."""
    font, gap = _font(text), text // 2
    widths = [
        part.width if isinstance(part, Image.Image) else round(font.getlength(part))
        for part in parts
    ]
    size = (sum(widths) + gap * (len(parts) + 2), round(LINE * text / TEXT))
    picture = Image.new("RGB", size, "white")
    draw, x = ImageDraw.Draw(picture), 0
    for part, width in zip(parts, widths, strict=True):
        if isinstance(part, Image.Image):
            picture.paste(part, (x, 2))
        else:
            draw.text((x, 0), part, fill="black", font=font)
        x += width + gap
    return picture
