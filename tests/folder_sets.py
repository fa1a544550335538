"""Small folders of pictures as their owners have them, for tests."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from imex_experiments.data import FolderData

SIZES = {"train": 4, "val": 2, "test": 2}


def save(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    """Write an array as a picture, or as .npy, in a folder that is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, pixels)
    else:
        Image.fromarray(pixels).save(path, **options)
    return path


def pixels(*shape: int, seed: int = 0, high: int = 256) -> np.ndarray:
    dtype = np.uint8 if high <= 256 else np.uint16
    return np.random.default_rng(seed).integers(0, high, shape, dtype=dtype)


def write_set(root: Path, side: int = 16, channels: int = 1) -> Path:
    """Write a set in the layout that needs no pattern: 4, 2 and 2 images, labels 0 and 1.

    A pixel is of class 1 where its grey, or its red, is at least 128.
    """
    shape = (side, side) if channels == 1 else (side, side, channels)
    for n, (split, number) in enumerate(SIZES.items()):
        for i in range(number):
            image = pixels(*shape, seed=10 * n + i)
            first = image if channels == 1 else image[..., 0]
            save(root / split / "images" / f"{i}.png", image)
            save(root / split / "labels" / f"{i}.png", (first >= 128).astype(np.uint8))
    return root


def folder_data(root: Path, task: str = "SegmentationTask", **more: Any) -> FolderData:
    """Return the data module of a folder, set up."""
    if task == "SegmentationTask":
        more = {"classes": ["dark", "bright"], **more}
    cache = str(root.parent / "cache")
    data = FolderData(str(root), task, cache, **{"batch_size": 2, **more})
    data.setup()
    return data


def write_stand_in(root: Path, name: str) -> Path:
    """Write a few pictures in the layout of a real set that the documentation names."""
    if name == "nyu_kitchens":
        lines = ["file_stem,scene"]
        for i in range(8):
            save(root / f"images/{i}.jpg", pixels(32, 40, 3, seed=i))
            save(root / f"depths/{i}.png", pixels(32, 40, seed=i))
            lines.append(f"{i},{i // 2}")
        (root / "frames.csv").write_text("\n".join(lines))
        return root
    shape = (32, 40) if name == "em_membranes" else (32, 40, 3)
    for split in SIZES:
        for i in range(4):
            label = pixels(32, 40, seed=i, high=12)
            if name == "em_membranes":
                label = np.where(label > 3, 255, 0).astype(np.uint8)
            save(root / split / f"images/{i}.jpg", pixels(*shape, seed=i))
            save(root / split / f"labels/{i}.png", label)
    return root
