"""Read a MATLAB v5 file: a small subset of the data, or splits.mat.

scipy is imported when a v5 file is read, because it takes longer than the rest.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from refusal import Arrays, RefusedError, Response, listed

LARGEST_SUBSET = 2**29
"""Most bytes of all arrays, which are read at once."""


def load_subset(path: str, depth: str) -> dict[str, np.ndarray]:
    """Return the arrays of a v5 file, with MATLAB's axes.

    Shapes: images (H, W, 3, N), depths (H, W, N).
    """
    import scipy.io

    shapes = {name: shape for name, shape, _ in scipy.io.whosmat(path)}
    if not {"images", depth} <= set(shapes):
        raise RefusedError(
            f"a MATLAB v5 file without 'images' and {depth!r} (it holds: "
            f"{listed(list(shapes))}); the data set is a v7.3 file: re-save it in MATLAB "
            "with save(..., '-v7.3')"
        )
    _require_small(shapes, depth)
    names = ["images", depth, "scenes", "sceneTypes"]
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
    texts = {
        name: [strings(cell, name) for cell in loaded[name].flat]
        for name in ("scenes", "sceneTypes")
        if name in loaded
    }
    counts = {"images": images.shape[3], depth: depths.shape[-1]} | {
        name: len(cells) for name, cells in texts.items()
    }
    if depths.ndim != 3 or len(set(counts.values())) > 1:
        raise RefusedError(f"the numbers of frames differ: {counts}")
    return {"images": images, "depths": depths, **texts}


def _require_small(shapes: Mapping[str, tuple[int, ...]], depth: str) -> None:
    """Raise RefusedError for arrays that need too much memory."""
    claimed = sum(
        math.prod(shape) * (1 if name == "images" else 8)
        for name, shape in shapes.items()
        if name in ("images", depth, "scenes", "sceneTypes")
    )
    if claimed > LARGEST_SUBSET:
        raise RefusedError(
            f"a MATLAB v5 file of {claimed:,} bytes, more than fits in memory at once; "
            "re-save it in MATLAB with save(..., '-v7.3')"
        )


def strings(cell: np.ndarray, name: str) -> str:
    if not isinstance(cell, np.ndarray) or cell.dtype.kind != "U":
        raise RefusedError(f"{name!r} must be a cell array of strings")
    return "".join(cell.flat)


def describe_v5(path: str, depth: str, frame: None) -> Iterator[Response]:
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


def official_split(path: str) -> Iterator[Response]:
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
