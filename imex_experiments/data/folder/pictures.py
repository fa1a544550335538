"""Read pictures of unknown origin: one door, with limits, for all formats.

Shapes: images (C, H, W), uint8 or float32, C = 1 or 3; labels (H, W), integers; depths
(H, W) float32.

Pillow opens only the formats that are listed here, because for others, such as EPS, it
starts programs. NumPy files are read without pickle. A link, a FIFO or a device is refused.
"""

import math
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from imex_experiments.errors import DataError
from imex_experiments.files import open_regular

FORMATS = {
    **dict.fromkeys((".jpg", ".jpeg"), "JPEG"),
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    ".png": "PNG",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".webp": "WEBP",
}
"""Suffix -> format of Pillow."""

ARRAY = ".npy"
SUFFIXES = (*FORMATS, ARRAY)
KNOWN = ", ".join(suffix[1:] for suffix in SUFFIXES)
"""All formats, as errors list them."""

MOST_PIXELS = 2**26
MOST_BYTES = 2**30
MOST_HEADER = 10_000
"""Most pixels of a picture, bytes of its file, and bytes of the header of an array."""

FOREIGN = (
    *(OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError),
    Image.DecompressionBombError,
)
"""Errors of Pillow and NumPy for bytes that are not of the format."""

GREY = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "I;16N", "F")
"""Modes of Pillow with one channel."""

COLOUR = ("RGB", "RGBA", "RGBX", "P", "PA")

Found = TypeVar("Found")


def read_image(path: Path, channels: int | None = None) -> NDArray[Any]:
    """Return an image (C, H, W): uint8 for 8 bits, float32 for 16 bits and numbers.

    A palette becomes colours, and transparency is left out. Raises DataError for a file
    that is not readable, and unless the image has `channels` channels, if it is given.
    """
    pixels = _read(path, _image_of, _image_array)
    if pixels.dtype != np.uint8 and not np.isfinite(pixels).all():
        raise DataError(f"{path}: it has NaN or Inf; replace them")
    if channels is not None and len(pixels) != channels:
        raise DataError(
            f"{path}: expected {_kind(channels)} image, got {_kind(len(pixels))} one; "
            "convert it"
        )
    return pixels


def read_labels(path: Path) -> NDArray[Any]:
    """Return the labels (H, W) that a picture holds, as integers.

    A palette with colours gives indices, and one of greys gives the greys. Raises
    DataError for colours without a palette.
    """
    return _read(path, _labels_of, _label_array)


def read_depth(path: Path) -> NDArray[np.float32]:
    """Return the depths (H, W) of a grey picture in the units of the file, float32."""

    def plane(pixels: NDArray[Any]) -> NDArray[np.float32]:
        if len(pixels) != 1:
            raise _UnsuitableError(
                f"{_kind(len(pixels))} picture, a depth has one channel"
            )
        return pixels[0].astype(np.float32)

    return _read(
        path,
        lambda image: plane(_image_of(image)),
        lambda array: plane(_image_array(array)),
    )


class _UnsuitableError(Exception):
    """Report a picture that is readable, but not of the kind that is wanted."""


def _read(
    path: Path,
    of_image: Callable[[Image.Image], Found],
    of_array: Callable[[NDArray[Any]], Found],
) -> Found:
    """Open a picture, and return what a function makes of it, with errors as DataError."""
    try:
        _refuse_link(path)
        with open_regular(path, MOST_BYTES) as file:
            if path.suffix.lower() == ARRAY:
                return of_array(_array(file))
            with Image.open(file, formats=sorted(set(FORMATS.values()))) as image:
                _check_size(image.width * image.height)
                # A telephone puts a preview behind its JPEG, which is an MPO then.
                if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
                    raise _UnsuitableError(
                        f"{image.n_frames} pages; save each as a file of its own"  # type: ignore[attr-defined]
                    )
                return of_image(_upright(image))
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except _UnsuitableError as error:
        raise DataError(f"{path}: {error}") from error
    except UnidentifiedImageError as error:
        raise DataError(
            f"{path}: not a readable image (none of {KNOWN}); mend it or take it out"
        ) from error
    except FOREIGN as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise DataError(
            f"{path}: not a readable image ({reason}); mend it or take it out"
        ) from error


def _upright(image: Image.Image) -> Image.Image:
    """Return an image turned as its EXIF orientation says, which is how viewers show it."""
    if image.getexif().get(ExifTags.Base.Orientation, 1) == 1:
        return image
    return ImageOps.exif_transpose(image)


def _refuse_link(path: Path) -> None:
    if stat.S_ISLNK(os.lstat(path).st_mode):
        raise _UnsuitableError(
            "a link, which is not followed; put the file itself there"
        )


def _check_size(pixels: int) -> None:
    if not 0 < pixels <= MOST_PIXELS:
        raise _UnsuitableError(
            f"{pixels:,} pixels, at least 1 and at most {MOST_PIXELS:,} are read"
        )


def _array(file: IO[bytes]) -> NDArray[Any]:
    """Read an array after its header has been checked; objects are refused."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of the format")
    header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, _, dtype = header(file, max_header_size=MOST_HEADER)
    if len(shape) not in (2, 3) or dtype.hasobject or dtype.kind not in "buif":
        raise _UnsuitableError(
            f"an array {shape} of {dtype}, expected numbers (H, W[, C])"
        )
    channels = min(shape) if len(shape) == 3 else 1
    _check_size(math.prod(shape) // max(1, channels))
    file.seek(0)
    array = np.lib.format.read_array(file, allow_pickle=False)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder())


def _image_of(image: Image.Image) -> NDArray[Any]:
    if image.mode not in (*GREY, *COLOUR):
        raise _UnsuitableError(
            f"colours of mode {image.mode}; convert it to grey or RGB"
        )
    if image.mode in ("RGB", "RGBA") and _is_deep(image):
        raise _UnsuitableError(
            "16-bit colours are not read; save it as 8-bit, or as .npy"
        )
    if image.mode == "1":
        image = image.convert("L")
    elif image.mode == "LA":
        return np.asarray(image)[None, ..., 0].copy()
    elif image.mode in ("P", "PA"):
        image = image.convert("L" if _is_grey(image) else "RGB")
    pixels = np.array(image)
    if pixels.ndim == 3:
        return np.ascontiguousarray(pixels[..., :3].transpose(2, 0, 1))
    return _as_8_bit_or_float(pixels)[None]


def _image_array(array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim == 2:
        array = array[None]
    elif array.shape[-1] in (1, 3):
        array = array.transpose(2, 0, 1)
    if len(array) not in (1, 3):
        raise _UnsuitableError(f"an array {array.shape}, expected 1 or 3 channels")
    return _as_8_bit_or_float(np.ascontiguousarray(array))


def _as_8_bit_or_float(pixels: NDArray[Any]) -> NDArray[Any]:
    return pixels if pixels.dtype == np.uint8 else pixels.astype(np.float32)


def _is_deep(image: Image.Image) -> bool:
    """Return True for colours of more than 8 bits, which Pillow would cut to 8."""
    return any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def _is_grey(image: Image.Image) -> bool:
    """Return True if the palette of an image has greys alone."""
    palette = np.asarray(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
    return bool((palette == palette[:, :1]).all())


def _labels_of(image: Image.Image) -> NDArray[Any]:
    if image.mode == "P" and not _is_grey(image):
        return np.array(image)
    pixels = _image_of(image)
    if len(pixels) == 3:
        if not (pixels == pixels[:1]).all():
            raise _UnsuitableError(
                "labels as colours; save the number of the class in each pixel, grey or "
                "with a palette"
            )
        pixels = pixels[:1]
    return _as_integers(pixels[0])


def _label_array(array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim == 3 and 1 in (array.shape[0], array.shape[-1]):
        array = array.squeeze(0 if array.shape[0] == 1 else -1)
    if array.ndim != 2:
        raise _UnsuitableError(f"labels of shape {array.shape}, expected (H, W)")
    return _as_integers(array)


def _as_integers(values: NDArray[Any]) -> NDArray[Any]:
    """Return values as integers. Raises _UnsuitableError if that would change them."""
    if values.dtype == np.uint8:
        return values
    whole = values.astype(np.int64)
    if not (whole == values).all():
        raise _UnsuitableError("labels that are not whole numbers")
    return whole


def _kind(channels: int) -> str:
    """Return an article and an adjective for a number of channels."""
    return {1: "a grey", 3: "a colour"}.get(channels, f"a {channels}-channel")
