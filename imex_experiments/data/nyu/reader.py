"""The process that parses .mat files: `python reader.py '<request in JSON>'`.

A damaged file can crash or stall the libraries that parse it. So `nyu_file` runs this file
as a process of its own and watches it. It imports nothing of ours: it starts in 0.15 s.
Nothing is read before the whole layout has been checked.

Every answer on stdout is one line of JSON; that of a frame is followed by its bytes. The last
one is {"done": true} or {"refused": "<why>"}.

Shapes: N frames of H x W pixels. HDF5 shows MATLAB's axes reversed: images (N, 3, W, H),
depths (N, W, H). What is sent is image (3, H, W) uint8 and depth (H, W) float32, metres.
"""

import json
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import h5py
import numpy as np

MEMORY = 2**31
"""Bytes this process may allocate: a length field gone wrong must not take the machine."""

OPENING_TRIES, OPENING_PAUSE = 6, 0.5
LONGEST_TEXT = 4096
LARGEST_CHUNK = 2**28
LARGEST_SUBSET = 2**29
"""Bytes: a chunk of an HDF5 data set; all arrays of a v5 file, which is read at once."""

DEFLATE_LIMIT = 1100
"""Deflate never packs more than 1032 bytes into one."""

FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
LINKS = {h5py.SoftLink: "a soft link", h5py.ExternalLink: "a link to another file"}

Answer = dict[str, Any]
Arrays = tuple[np.ndarray, ...]


class RefusedError(Exception):
    """Why the file cannot be used, in one line without its path."""


# ------------------------------------------------------------------ MATLAB v7.3, HDF5


def opened(path: str) -> h5py.File:
    """The file, tried for some seconds while another process has locked it."""
    for _ in range(OPENING_TRIES):
        try:
            return h5py.File(path, "r", rdcc_nbytes=LARGEST_CHUNK // 4)
        except OSError as error:
            if "unable to lock file" not in str(error):
                raise
            time.sleep(OPENING_PAUSE)
    raise RefusedError(
        "locked by a program that writes to it; wait until it has ended, or set "
        "HDF5_USE_FILE_LOCKING=FALSE if none does or the file system has no locks"
    )


def listed(names: Sequence[str]) -> str:
    shown = ", ".join(ascii(name)[1:-1] for name in names[:20])
    return f"{shown}, ..." if len(names) > 20 else shown or "nothing"


def dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """A data set of the file that is stored in the file itself."""
    link = file.get(name, getlink=True)
    if link is None:
        raise RefusedError(f"no data set {name!r}; it holds: {listed(list(file))}")
    if not isinstance(link, h5py.HardLink):
        kind = LINKS.get(type(link), "no plain data set")
        raise RefusedError(f"{name!r} is {kind}; refused, nothing was read")
    if file.get(name, getclass=True) is not h5py.Dataset:
        raise RefusedError(
            f"{name!r} is a group, not a data set; the file holds: {listed(list(file))}"
        )
    return stored_here(file[name], name)


def stored_here(found: h5py.Dataset, name: str) -> h5py.Dataset:
    """The data set, unless its bytes lie elsewhere or cannot be as many as it claims."""
    plan = found.id.get_create_plist()
    if plan.get_layout() == h5py.h5d.VIRTUAL:
        raise RefusedError(f"{name!r} is a virtual data set; refused, nothing was read")
    if plan.get_external_count():
        raise RefusedError(
            f"{name!r} is kept in other files (external storage); refused, nothing was read"
        )
    filters = {plan.get_filter(i)[0] for i in range(plan.get_nfilters())}
    if filters - FILTERS:
        raise RefusedError(
            f"{name!r} needs HDF5 filter {min(filters - FILTERS)}; re-save it with gzip"
        )
    if found.shape is None:
        raise RefusedError(f"{name!r} is empty")
    claimed, stored = math.prod(found.shape) * found.dtype.itemsize, storage(found)
    if claimed > stored * (DEFLATE_LIMIT if filters else 1):
        raise RefusedError(
            f"{name!r} claims {claimed:,} bytes in shape {found.shape}, but {stored:,} are "
            "stored; refused, nothing was read"
        )
    if found.chunks and math.prod(found.chunks) * found.dtype.itemsize > LARGEST_CHUNK:
        raise RefusedError(
            f"{name!r} has chunks of {found.chunks}, more than {LARGEST_CHUNK:,} bytes each; "
            "re-save it with smaller ones"
        )
    return found


def storage(found: h5py.Dataset) -> int:
    """Bytes that the file really has for a data set."""
    return min(found.id.get_storage_size(), found.file.id.get_filesize())


def require(
    found: h5py.Dataset, name: str, dtype: str, shape: Sequence[int | None]
) -> None:
    """Type and shape as expected; None stands for the number of frames."""
    fits = len(found.shape) == len(shape) and all(
        size in (None, have) for size, have in zip(shape, found.shape, strict=True)
    )
    if fits and found.dtype == np.dtype(dtype):
        return
    wanted = ", ".join("N" if size is None else str(size) for size in shape)
    sizes = {size for size in shape if size is not None}
    hint = "; its axes are in another order" if sizes <= set(found.shape) else ""
    raise RefusedError(
        f"{name!r} is {found.dtype} {found.shape}, expected {np.dtype(dtype)} ({wanted}), as "
        f"h5py shows what MATLAB wrote{hint if not fits else ''}"
    )


def require_references(found: h5py.Dataset, name: str) -> None:
    references = h5py.check_ref_dtype(found.dtype) is h5py.Reference
    if not references or len(found.shape) != 2 or found.shape[0] != 1:
        raise RefusedError(
            f"{name!r} is {found.dtype} {found.shape}, expected object references (1, N)"
        )


def text(file: h5py.File, reference: h5py.Reference, name: str) -> str:
    """The string behind a reference: (L, 1) uint16 characters."""
    if not reference:
        raise RefusedError(f"{name!r} holds an empty reference")
    target = file[reference]
    if not isinstance(target, h5py.Dataset):
        raise RefusedError(f"{name!r} refers to a group, expected characters")
    stored_here(target, name)
    if (
        target.dtype != np.dtype("u2")
        or len(target.shape) != 2
        or target.shape[1] != 1
        or target.shape[0] > LONGEST_TEXT
    ):
        raise RefusedError(
            f"{name!r} refers to {target.dtype} {target.shape}, expected uint16 characters "
            f"(L, 1), L <= {LONGEST_TEXT}"
        )
    return target[:, 0].astype("<u2").tobytes().decode("utf-16-le", "replace")


def layout(
    file: h5py.File, depth: str, frame: Sequence[int]
) -> dict[str, h5py.Dataset]:
    """The data sets that are read, after all checks that need no pixel."""
    height, width = frame
    names = ("images", depth, "scenes", "sceneTypes")
    found = {name: dataset(file, name) for name in names}
    require(found["images"], "images", "u1", (None, 3, width, height))
    require(found[depth], depth, "f4", (None, width, height))
    for name in ("scenes", "sceneTypes"):
        require_references(found[name], name)
    counts = {
        name: data.shape[1 if name in ("scenes", "sceneTypes") else 0]
        for name, data in found.items()
    }
    if len(set(counts.values())) > 1:
        raise RefusedError(f"the numbers of frames differ: {counts}")
    return found


def describe_hdf5(path: str, depth: str, frame: Sequence[int]) -> Iterator[Answer]:
    with opened(path) as file:
        found = layout(file, depth, frame)
        words = {
            name: [text(file, reference, name) for reference in found[name][0]]
            for name in ("scenes", "sceneTypes")
        }
        yield {
            "scenes": words["scenes"],
            "scene_types": words["sceneTypes"],
            "datasets": [summary(file, name) for name in file if name != "#refs#"],
        }


def summary(file: h5py.File, name: str) -> list[str]:
    link = file.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        return [name, "", LINKS.get(type(link), "unknown")]
    found = file[name]
    if not isinstance(found, h5py.Dataset):
        return [name, "", "group"]
    references = h5py.check_ref_dtype(found.dtype) is not None
    kind = "reference" if references else str(found.dtype)
    return [name, " x ".join(map(str, found.shape or ())), kind]


def frames_hdf5(
    path: str, depth: str, frame: Sequence[int], indices: Sequence[int]
) -> Iterator[Arrays]:
    with opened(path) as file:
        found = layout(file, depth, frame)
        for index in indices:
            yield found["images"][index].transpose(0, 2, 1), found[depth][index].T


# ----------------------------------------------------------------------- MATLAB v5


def load_subset(path: str, depth: str) -> dict[str, np.ndarray]:
    """Arrays of a v5 file in MATLAB's own axes: images (H, W, 3, N), depths (H, W, N)."""
    import scipy.io

    shapes = {name: (shape, kind) for name, shape, kind in scipy.io.whosmat(path)}
    if not {"images", depth} <= set(shapes):
        raise RefusedError(
            f"a MATLAB v5 file without 'images' and {depth!r} (it holds: "
            f"{listed(list(shapes))}); the data set is a v7.3 file: re-save it in MATLAB "
            "with save(..., '-v7.3')"
        )
    names = ["images", depth, "scenes", "sceneTypes"]
    claimed = sum(
        math.prod(shapes[name][0]) * (1 if name == "images" else 8)
        for name in names
        if name in shapes
    )
    if claimed > LARGEST_SUBSET:
        raise RefusedError(
            f"a MATLAB v5 file of {claimed:,} bytes, more than fits in memory at once; "
            "re-save it in MATLAB with save(..., '-v7.3')"
        )
    loaded = scipy.io.loadmat(path, variable_names=names)
    images, depths = loaded["images"], loaded[depth]
    # MATLAB drops the last axis of a single frame.
    images = images[..., None] if images.ndim == 3 else images
    depths = depths[..., None] if depths.ndim == 2 else depths
    height, width = images.shape[:2]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[2] != 3:
        raise RefusedError(
            f"'images' is {images.dtype} {images.shape}, expected uint8 (H, W, 3, N)"
        )
    if depths.dtype.kind != "f" or depths.shape[:2] != (height, width):
        raise RefusedError(
            f"{depth!r} is {depths.dtype} {depths.shape}, expected floats "
            f"({height}, {width}, N), as 'images'"
        )
    words = {
        name: [strings(cell, name) for cell in loaded[name].flat]
        for name in ("scenes", "sceneTypes")
        if name in loaded
    }
    counts = {"images": images.shape[3], depth: depths.shape[-1]} | {
        name: len(cells) for name, cells in words.items()
    }
    if depths.ndim != 3 or len(set(counts.values())) > 1:
        raise RefusedError(f"the numbers of frames differ: {counts}")
    return {"images": images, "depths": depths, **words}


def strings(cell: np.ndarray, name: str) -> str:
    if not isinstance(cell, np.ndarray) or cell.dtype.kind != "U":
        raise RefusedError(f"{name!r} must be a cell array of strings")
    return "".join(cell.flat)


def describe_v5(path: str, depth: str, frame: None) -> Iterator[Answer]:
    found = load_subset(path, depth)
    yield {
        "scenes": found.get("scenes"),
        "scene_types": found.get("sceneTypes"),
        "number": found["images"].shape[3],
        "datasets": [
            [
                depth if name == "depths" else name,
                " x ".join(map(str, v.shape)),
                str(v.dtype),
            ]
            for name, v in found.items()
            if isinstance(v, np.ndarray)
        ],
    }


def frames_v5(
    path: str, depth: str, frame: None, indices: Sequence[int]
) -> Iterator[Arrays]:
    found = load_subset(path, depth)
    for index in indices:
        yield (
            found["images"][..., index].transpose(2, 0, 1),
            found["depths"][..., index].astype(np.float32),
        )


def official_split(path: str) -> Iterator[Answer]:
    import scipy.io

    names = ("trainNdxs", "testNdxs")
    shapes = {name: shape for name, shape, _ in scipy.io.whosmat(path)}
    for name in names:
        if name not in shapes:
            raise RefusedError(f"no {name!r}; it holds: {listed(list(shapes))}")
        if len(shapes[name]) != 2 or shapes[name][1] != 1 or shapes[name][0] > 10**6:
            raise RefusedError(f"{name!r} is {shapes[name]}, expected (n, 1)")
    loaded = scipy.io.loadmat(path, variable_names=names)
    for name in names:
        if loaded[name].dtype.kind not in "uif" or (loaded[name] % 1 != 0).any():
            raise RefusedError(
                f"{name!r} is {loaded[name].dtype}, expected whole numbers"
            )
    yield {name: [int(n) for n in loaded[name].flat] for name in names}


# ------------------------------------------------------------------------- answers

ASKED: dict[str, Callable[..., Iterator[Answer | Arrays]]] = {
    "describe_v7.3": describe_hdf5,
    "frames_v7.3": frames_hdf5,
    "describe_v5": describe_v5,
    "frames_v5": frames_v5,
    "official_split": official_split,
}


def send(answer: Answer, arrays: Arrays = ()) -> None:
    out = sys.stdout.buffer
    out.write(json.dumps(answer).encode() + b"\n")
    for array in arrays:
        out.write(np.ascontiguousarray(array).data)
    out.flush()


def main() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    request = json.loads(sys.argv[1])
    try:
        for answer in ASKED[request.pop("ask")](**request):
            if isinstance(answer, dict):
                send(answer)
            else:
                send({"shapes": [array.shape for array in answer]}, answer)
        send({"done": True})
    except RefusedError as error:
        send({"refused": str(error)})
    except MemoryError:
        send({"refused": f"asks for more than {MEMORY:,} bytes at once; it is damaged"})
    except Exception as error:  # the libraries raise nearly anything for a damaged file
        told = " ".join(ascii(str(error))[1:-1].split())[:200]
        send({"refused": f"damaged, it cannot be read ({told})"})


if __name__ == "__main__":
    main()
