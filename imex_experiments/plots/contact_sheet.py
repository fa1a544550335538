"""A contact sheet of images above their depths, on one colour scale in metres.

Shapes: images (3, H, W) uint8; depths (H, W) in metres, 0 or not finite where invalid.
"""

from collections.abc import Sequence

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from imex_experiments.plots.sheet import Pixels

COLUMNS = 4
WIDTH = 240
MARGIN = 6
LINE = 20
BAR = 16
INVALID = (255, 255, 255)
"""The colour of pixels without a valid depth: white."""


def colour_depth(
    depth: NDArray[np.floating], nearest: float, farthest: float
) -> Pixels:
    """Return depths (H, W) as colours (H, W, 3); near is dark, invalid pixels are white."""
    valid = np.isfinite(depth) & (depth > 0)
    scaled = (np.where(valid, depth, nearest) - nearest) / max(farthest - nearest, 1e-9)
    colours = matplotlib.colormaps["viridis"](scaled.clip(0, 1), bytes=True)[..., :3]
    return np.where(valid[..., None], colours, INVALID).astype(np.uint8)


def contact_sheet(
    images: Sequence[Pixels],
    depths: Sequence[NDArray[np.floating]],
    titles: Sequence[str],
) -> Pixels:
    """Draw all frames with their titles on one sheet, (height, width, 3)."""
    valid = [depth[np.isfinite(depth) & (depth > 0)] for depth in depths]
    known = np.concatenate(valid)
    nearest, farthest = (known.min(), known.max()) if known.size else (0.0, 1.0)
    height = round(WIDTH * images[0].shape[1] / images[0].shape[2])
    columns = min(COLUMNS, len(images))
    rows = -(-len(images) // columns)
    step_x, step_y = WIDTH + MARGIN, LINE + 2 * height + 2 * MARGIN
    size = (MARGIN + columns * step_x, MARGIN + rows * step_y + BAR + LINE + MARGIN)
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    for at, (image, depth, title) in enumerate(
        zip(images, depths, titles, strict=True)
    ):
        row, column = divmod(at, columns)
        x, y = MARGIN + column * step_x, MARGIN + row * step_y
        draw.text((x, y), title, fill="black", font=font)
        coloured = colour_depth(depth, nearest, farthest)
        below = y + LINE + height + MARGIN // 2
        sheet.paste(_shrunk(image.transpose(1, 2, 0), height), (x, y + LINE))
        sheet.paste(_shrunk(coloured, height), (x, below))
    _colour_bar(sheet, draw, font, float(nearest), float(farthest))
    return np.asarray(sheet)


def _shrunk(pixels: Pixels, height: int) -> Image.Image:
    """Return pixels (H, W, 3) as an image of WIDTH x height."""
    return Image.fromarray(np.ascontiguousarray(pixels)).resize((WIDTH, height))


def _colour_bar(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    nearest: float,
    farthest: float,
) -> None:
    """Draw the colour scale at the bottom, with five ticks in metres."""
    width, top = sheet.width - 2 * MARGIN, sheet.height - BAR - LINE - MARGIN
    ramp = np.broadcast_to(np.linspace(nearest, farthest, width), (BAR, width))
    sheet.paste(Image.fromarray(colour_depth(ramp, nearest, farthest)), (MARGIN, top))
    for share in np.linspace(0, 1, 5):
        words = f"{nearest + share * (farthest - nearest):.2f} m"
        room = width - draw.textlength(words, font=font)
        draw.text(
            (MARGIN + share * room, top + BAR + 2), words, fill="black", font=font
        )
