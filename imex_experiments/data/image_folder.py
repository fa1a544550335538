"""Read and write folders of 8-bit grey PNGs: `images/`, `labels/` and `filenames.txt`.

The published Q-tips data have this layout.

Shapes: images (N, 1, H, W) uint8, labels (N, H, W) uint8.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from imex_experiments.errors import DataError
from imex_experiments.files import open_regular, read_regular

MODES = {1: ("L", "grey"), 3: ("RGB", "colour")}
"""Channels -> mode of Pillow, and its name in errors."""

FOREIGN = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""Errors of Pillow for bytes that are not a PNG."""

MOST_PIXELS = 2**26
MOST_NAMES = 2**26
"""Most pixels of an image, and most bytes of filenames.txt."""


def read_image(path: Path, channels: int) -> np.ndarray:
    """Return an 8-bit image (C, H, W), C = 1 or 3. Raises DataError for anything else."""
    mode, kind = MODES[channels]
    try:
        # For other formats, such as EPS, Pillow starts programs.
        with open_regular(path) as file, Image.open(file, formats=["PNG"]) as image:
            if image.width * image.height > MOST_PIXELS:
                raise DataError(
                    f"{path}: {image.width} x {image.height} pixels, at most "
                    f"{MOST_PIXELS:,} are read"
                )
            if image.mode != mode:
                raise DataError(
                    f"{path}: expected an 8-bit {kind} image, got mode {image.mode}; "
                    f"convert it to 8-bit {kind}"
                )
            pixels = np.array(image)
            return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such image") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: not a readable image (no PNG)") from error
    except FOREIGN as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: not a readable image ({reason})") from error


def read_image_folder(folder: Path, classes: int) -> dict[str, Tensor]:
    """Return the images and labels that `filenames.txt` lists.

    Raises DataError for a missing or unreadable file, images without labels, different
    sizes, and labels that are no class.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    names = _names(folder)
    images, labels = (
        _stack(
            [read_image(folder / kind / name, 1)[0] for name in names],
            names,
            folder / kind,
        )
        for kind in ("images", "labels")
    )
    if images.shape != labels.shape:
        raise DataError(
            f"{folder}: images are {tuple(images.shape[1:])} pixels and labels "
            f"{tuple(labels.shape[1:])}"
        )
    if int(labels.max()) >= classes:
        worst = names[int(labels.flatten(1).amax(1).argmax())]
        raise DataError(
            f"{folder / 'labels' / worst}: label {int(labels.max())} is not one of "
            f"0 ... {classes - 1}"
        )
    return {"images": images[:, None], "labels": labels}


def _names(folder: Path) -> list[str]:
    """Return the file names in `filenames.txt`, with DataError for unpaired images."""
    found = {
        kind: {path.name for path in (folder / kind).glob("*.png")}
        for kind in ("images", "labels")
    }
    unpaired = sorted(found["images"] ^ found["labels"])
    if unpaired:
        raise DataError(
            f"{folder}: {len(found['images'])} images but {len(found['labels'])} labels; "
            f"first without a partner: {unpaired[0]}"
        )
    try:
        content = read_regular(folder / "filenames.txt", MOST_NAMES)
        names = content.decode("utf-8").split()
    except FileNotFoundError as error:
        raise DataError(
            f"{folder / 'filenames.txt'}: missing; it lists the images"
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder / 'filenames.txt'}: not readable ({error})"
        ) from error
    if not names:
        raise DataError(f"{folder / 'filenames.txt'}: lists no images")
    for name in names:
        if Path(name).name != name or "\0" in name:
            raise DataError(
                f"{folder / 'filenames.txt'}: {name!r} is not a plain file name"
            )
    return names


def _stack(arrays: list[np.ndarray], names: list[str], folder: Path) -> Tensor:
    for array, name in zip(arrays, names, strict=True):
        if array.shape != arrays[0].shape:
            raise DataError(
                f"{folder / name}: {array.shape} pixels, others have {arrays[0].shape}"
            )
    return torch.from_numpy(np.stack(arrays))


def require_empty(folder: Path) -> None:
    """Raise DataError unless the folder is new or empty: nothing is overwritten."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: not an empty folder; choose a new one")


def write_image_folder(folder: Path, images: Tensor, labels: Tensor) -> None:
    """Write images and labels to a new or empty folder, for `read_image_folder`."""
    require_empty(folder)
    names = [f"{index:06d}.png" for index in range(len(images))]
    for kind, tensor in (("images", images[:, 0]), ("labels", labels)):
        (folder / kind).mkdir(parents=True)
        for name, array in zip(names, tensor.numpy(), strict=True):
            Image.fromarray(array).save(folder / kind / name)
    (folder / "filenames.txt").write_text(
        "".join(f"{name}\n" for name in names), encoding="utf-8"
    )
