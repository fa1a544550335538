"""Files for the tests of the NYU reader, and commands that end in a process of their own."""

import multiprocessing
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io

from imex_experiments.data.nyu.data_module import NyuData
from imex_experiments.process.command import run_command

KINDS = ("kitchen", "kitchen", "office_kitchen", "kitchen", "kitchen", "bedroom")
SCENES = ("k_1", "k_1", "o_1", "k_2", "k_3", "b_1")


def write_small(
    path: Path, kinds: Sequence[str] = KINDS, scenes: Sequence[str] = SCENES
) -> Path:
    """A few kB in the layout: frame i is grey 10 i and i + 1 metres deep everywhere."""
    number = len(kinds)
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, dtype, inner in (
            ("images", "u1", (3, 640, 480)),
            ("depths", "f4", (640, 480)),
            ("rawDepths", "f4", (640, 480)),
        ):
            data = file.create_dataset(
                name, (number, *inner), dtype, chunks=(1, *inner), compression=9
            )
            for index in range(number):
                data[index] = 10 * index if name == "images" else index + 1
        for name, words in (("scenes", scenes), ("sceneTypes", kinds)):
            cell = file.create_dataset(name, (1, len(words)), h5py.ref_dtype)
            for index, word in enumerate(words):
                codes = np.array([[ord(letter)] for letter in word], "u2")
                text = file.create_dataset(f"#refs#/{name}{index}", data=codes)
                cell[0, index] = text.ref
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    return path


def edit(change: Callable[[h5py.File], object]) -> Callable[[Path], None]:
    """A change of an HDF5 file, to be applied to a path."""

    def apply(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            change(file)

    return apply


def replace(name: str, **arguments: Any) -> Callable[[Path], None]:
    """Another data set under a name."""

    def change(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, **arguments)

    return edit(change)


def write_subset(path: Path, **arrays: Any) -> Path:
    """A small MATLAB v5 file: frame i is grey 10 i and i + 1 metres deep."""
    grey = np.arange(4, dtype=np.uint8)
    images = np.broadcast_to(10 * grey, (6, 8, 3, 4))
    depths = np.broadcast_to(grey + 1.0, (6, 8, 4))
    found = {"images": images, "depths": depths} | arrays
    scipy.io.savemat(path, {k: v for k, v in found.items() if v is not None})
    return path


def cells(words: Sequence[str]) -> np.ndarray:
    """A MATLAB cell array of strings."""
    array = np.empty((1, len(words)), object)
    array[0, :] = words
    return array


def make(path: Path, **options: Any) -> NyuData:
    """NyuData after `setup`, with a cache beside the file."""
    chosen = {"image_size": [6, 8], "batch_size": 1} | options
    data = NyuData(str(path.parent / "cache"), str(path), **chosen)
    data.setup()
    return data


def ended(act: Callable[[], object], folder: Path) -> tuple[int, str]:
    """Exit code and stderr of a command whose main is `act`, in a process of its own.

    Its stdout goes to `<folder>/stdout.txt`.
    """
    out, err = folder / "stdout.txt", folder / "stderr.txt"

    def command() -> None:
        with out.open("w") as sys.stdout, err.open("w") as sys.stderr:
            run_command(act)

    process = multiprocessing.get_context("fork").Process(target=command)
    process.start()
    process.join(60)
    assert process.exitcode is not None, "it hangs"
    return process.exitcode, err.read_text()
