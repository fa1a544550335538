"""Read the HDF5 of a MATLAB v7.3 file.

HDF5 shows the axes of MATLAB reversed: images (N, 3, W, H), depths (N, W, H).
"""

import math
import time
from collections.abc import Iterator, Sequence

import h5py
import numpy as np
from refusal import Arrays, RefusedError, Response, listed

OPENING_TRIES, OPENING_PAUSE = 6, 0.5
LONGEST_TEXT = 4096
LARGEST_CHUNK = 2**28
"""Most bytes of a chunk."""

DEFLATE_LIMIT = 1100
"""Most bytes per stored byte; deflate compresses by a factor of 1032 at most."""

FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
LINKS = {h5py.SoftLink: "a soft link", h5py.ExternalLink: "a link to another file"}


def opened(path: str) -> h5py.File:
    """Open the file, with several tries while another process has locked it."""
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


def dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """Return a data set. Raises RefusedError unless it is stored in the file itself."""
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
    """Return the data set.

    Raises RefusedError if its bytes lie in other files, or if it claims more bytes than the
    stored ones can hold.
    """
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
    """Return the bytes that the file holds for a data set."""
    return min(found.id.get_storage_size(), found.file.id.get_filesize())


def require(
    found: h5py.Dataset, name: str, dtype: str, shape: Sequence[int | None]
) -> None:
    """Raise RefusedError for another type or shape; None is the number of frames."""
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
    """Return the string behind a reference: (L, 1) uint16 characters."""
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
    """Return the data sets that are read, after all checks that need no pixels."""
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


def describe_hdf5(path: str, depth: str, frame: Sequence[int]) -> Iterator[Response]:
    with opened(path) as file:
        found = layout(file, depth, frame)
        texts = {
            name: [text(file, reference, name) for reference in found[name][0]]
            for name in ("scenes", "sceneTypes")
        }
        yield {
            "scenes": texts["scenes"],
            "scene_types": texts["sceneTypes"],
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
