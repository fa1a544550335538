"""Write a file of rendered rooms in the layout of `nyu_depth_v2_labeled.mat`.

The format is MATLAB v7.3: 512 bytes of header, then HDF5 with the axes of MATLAB reversed.
Strings are (L, 1) uint16 in the group `#refs#`, and cell arrays are references to them.
"""

from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np
from rich.progress import track

from imex_experiments.data.cache import complete_file
from imex_experiments.data.nyu.camera import SIZE, View, place_cameras, render
from imex_experiments.data.nyu.rooms import NAMES, SCENE_TYPES, make_room
from imex_experiments.errors import DataError

VERSION = 1
"""Part of the file name. Raise it when the same seed gives another file."""

FRAMES_PER_SCENE = 2
PUBLISHED_NAMES = 894
"""Number of object names in the published file; unused names fill the list."""

HEADER = (
    b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Thu Jan  1 00:00:00 2026 "
    b"HDF5 schema 1.00 ."
)
"""A fixed date: the same seed gives the same file."""

PIXELS = {
    "images": ("u1", "uint8"),
    "depths": ("f4", "single"),
    "rawDepths": ("f4", "single"),
    "labels": ("u2", "uint16"),
    "instances": ("u1", "uint8"),
}


def nyu_sample_path(folder: Path, frames: int, seed: int) -> Path:
    """Return the path of the sample with so many frames. Raises ValueError for frames < 1."""
    if frames < 1:
        raise ValueError(f"frames must be >= 1, got {frames}")
    return folder / f"nyu-sample-v{VERSION}-{frames}-{seed}.mat"


def make_nyu_sample(path: Path, frames: int, seed: int) -> None:
    """Render rooms and write the file, which appears only when it is complete."""
    try:
        with complete_file(path) as temporary:
            _write(temporary, frames, seed)
    except OSError as error:
        raise DataError(
            f"{path}: the sample cannot be written ({error.strerror or error}); choose "
            "another folder, or free some space"
        ) from error


def _write(path: Path, frames: int, seed: int) -> None:
    height, width = SIZE
    with h5py.File(path, "w", userblock_size=512, libver=("earliest", "v108")) as file:
        for name, (dtype, matlab) in PIXELS.items():
            inner = (3, width, height) if name == "images" else (width, height)
            data = file.create_dataset(
                name,
                (frames, *inner),
                dtype,
                chunks=(1, *inner),
                compression="gzip",
                compression_opts=1,
            )
            _mark(data, matlab)
        cells = Cells(file)
        for index in track(range(frames), description="rendering rooms"):
            _put(file, index, _view(index, seed))
        number, place = np.divmod(np.arange(frames), FRAMES_PER_SCENE)
        kinds = [SCENE_TYPES[n % len(SCENE_TYPES)] for n in number]
        scenes = [f"{kind}_{n:04d}" for kind, n in zip(kinds, number, strict=True)]
        stems = [f"{scene}/{at}" for scene, at in zip(scenes, place, strict=True)]
        cells.add("scenes", scenes)
        cells.add("sceneTypes", kinds)
        cells.add("rawDepthFilenames", [f"{stem}.pgm" for stem in stems])
        cells.add("rawRgbFilenames", [f"{stem}.ppm" for stem in stems])
        unused = [f"unused {n}" for n in range(len(NAMES) + 1, PUBLISHED_NAMES + 1)]
        cells.add("names", [*NAMES, *unused])
        # A camera at rest measures gravity alone: x, y, z and the tilt.
        rest = np.tile(np.array([[0.0], [-1.0], [0.0], [0.0]], np.float32), (1, frames))
        _mark(file.create_dataset("accelData", data=rest), "single")
    with path.open("r+b") as raw:
        raw.write(HEADER.ljust(116) + bytes(8) + b"\x00\x02IM")


def _view(index: int, seed: int) -> View:
    """Render frame `index`; the frames of one scene show the same room."""
    number, place = divmod(index, FRAMES_PER_SCENE)
    rng = np.random.default_rng([seed, number])
    room = make_room(SCENE_TYPES[number % len(SCENE_TYPES)], rng)
    camera = place_cameras(room, FRAMES_PER_SCENE, rng)[place]
    return render(room, camera, np.random.default_rng([seed, number, place]))


def _put(file: h5py.File, index: int, view: View) -> None:
    file["images"][index] = view.image.transpose(0, 2, 1)
    file["depths"][index] = view.depth.T
    file["rawDepths"][index] = view.raw_depth.T
    file["labels"][index] = view.labels.T
    file["instances"][index] = view.instances.T


def _mark(data: h5py.Dataset, matlab_class: str) -> None:
    """Set the attribute MATLAB_class, a C string without a final 0, as MATLAB does."""
    kind = h5py.h5t.C_S1.copy()
    kind.set_size(len(matlab_class))
    space = h5py.h5s.create(h5py.h5s.SCALAR)
    attribute = h5py.h5a.create(data.id, b"MATLAB_class", kind, space)
    attribute.write(np.array(matlab_class, f"S{len(matlab_class)}"), mtype=kind)


class Cells:
    """MATLAB cell arrays of strings."""

    def __init__(self, file: h5py.File) -> None:
        self.file = file
        self.strings = file.create_group("#refs#")

    def add(self, name: str, strings: Iterable[str]) -> None:
        """Write a cell array (1, N) of strings."""
        references = [self._string(text).ref for text in strings]
        cell = self.file.create_dataset(name, (1, len(references)), h5py.ref_dtype)
        cell[0] = references
        _mark(cell, "cell")

    def _string(self, text: str) -> h5py.Dataset:
        characters = np.frombuffer(text.encode("utf-16-le"), "u2")
        name = f"s{len(self.strings)}"
        data = self.strings.create_dataset(name, data=characters[:, None])
        _mark(data, "char")
        data.attrs["MATLAB_int_decode"] = np.int32(2)
        return data
