"""Read and write the published layout: `images/`, `labels/` and `filenames.txt`.

The published Q-tips data have this layout, all in 8-bit grey PNGs.

Shapes: images (N, 1, H, W) uint8, labels (N, H, W) uint8.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from imex_experiments.data.folder.pictures import read_image
from imex_experiments.errors import DataError
from imex_experiments.files import read_regular

MOST_NAMES = 2**26
"""Most bytes of filenames.txt."""


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
            [_read_grey(folder / kind / name) for name in names],
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


def _read_grey(path: Path) -> np.ndarray:
    """Return an 8-bit grey image (H, W). Raises DataError for any other."""
    pixels = read_image(path, channels=1)[0]
    if pixels.dtype != np.uint8:
        raise DataError(f"{path}: more than 8 bits; convert it to 8-bit grey")
    return pixels


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
