"""Read `nyu_depth_v2_labeled.mat`, or a small v5 subset of it.

The first bytes are checked here. The rest is parsed by `reader` in a process of its own, so
that a damaged file is reported as one line and never crashes this process.

Shapes: image (3, H, W) uint8; depth (H, W) float32, metres, as stored. Invalid depths are 0,
negative, NaN or Inf.
"""

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from imex_experiments.errors import DataError
from imex_experiments.files import open_regular

FRAME = (480, 640)
PUBLISHED_MD5 = "520609c519fba3ba5ac58c8fefcc3530"
PUBLISHED_BYTES = 2_972_037_809
SOURCE = "https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html"
GET_IT = (
    f"get nyu_depth_v2_labeled.mat ({PUBLISHED_BYTES:,} bytes, MD5 {PUBLISHED_MD5}) from "
    f"{SOURCE}"
)

SILENCE = 10.0
"""Seconds that the parsing process may take from one response to the next."""

Response = tuple[dict[str, Any], bytes]
"""Its line of JSON, and the bytes of a frame."""

_READER = Path(__file__).with_name("reader")
_SIGNATURE = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class NyuContents:
    """The scene and the type of scene of each of the N frames in a file.

    A v5 subset may lack them: then every frame is a scene of its own, without a type.
    `datasets` are rows of name, shape and type.
    """

    version: str
    scenes: list[str]
    scene_types: list[str] | None
    datasets: list[list[str]]


def mat_version(path: Path) -> str:
    """Return "v7.3" or "v5". Raises DataError for a file that is no complete .mat file."""
    if path.is_dir():
        raise DataError(f"{path}: a folder, not a .mat file; {GET_IT}")
    try:
        with open_regular(path) as file:
            head, size = file.read(4096), os.fstat(file.fileno()).st_size
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; {GET_IT}") from error
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{path}: cannot be opened ({reason}); {GET_IT}") from error
    if not head:
        raise DataError(f"{path}: empty; {GET_IT}")
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype", b"<html")):
        raise DataError(f"{path}: an HTML page, not the file behind it; {GET_IT}")
    start = next(
        (at for at in (0, 512, 1024, 2048) if head[at : at + 8] == _SIGNATURE), None
    )
    if start is not None:
        _require_whole(path, head[start:], size)
        return "v7.3"
    if head[:6] == b"MATLAB" and head[124:128] in (b"\x00\x01IM", b"\x01\x00MI"):
        return "v5"
    raise DataError(f"{path}: neither a MATLAB v7.3 nor a v5 file; {GET_IT}")


def _require_whole(path: Path, superblock: bytes, size: int) -> None:
    """Raise DataError if the file is shorter than its HDF5 superblock records."""
    version = superblock[8]
    at, width = {0: (40, 13), 1: (44, 13), 2: (28, 9), 3: (28, 9)}.get(version, (0, 9))
    if at == 0:
        raise DataError(f"{path}: HDF5 superblock version {version}; {GET_IT}")
    end = int.from_bytes(superblock[at : at + superblock[width]], "little")
    if size < end:
        raise DataError(
            f"{path}: truncated, {end:,} bytes expected and {size:,} found; {GET_IT}"
        )


def read_contents(path: Path, depth: str = "depths") -> NyuContents:
    """Check the layout of a file; return scenes and types of all frames."""
    version = mat_version(path)
    request = {"kind": f"describe_{version}", "depth": depth, "frame": _frame(version)}
    with closing(_responses(path, request)) as responses:
        found, _ = next(responses)
    scenes = found["scenes"]
    if scenes is None:
        scenes = [f"frame {index}" for index in range(found["number"])]
    return NyuContents(version, scenes, found["scene_types"], found["datasets"])


def read_frames(
    path: Path, indices: Sequence[int], depth: str = "depths"
) -> Generator[tuple[np.ndarray, np.ndarray]]:
    """Yield image and depth of each of the frames."""
    version = mat_version(path)
    request = {
        "kind": f"frames_{version}",
        "depth": depth,
        "frame": _frame(version),
        "indices": list(indices),
    }
    with closing(_responses(path, request)) as responses:
        for header, body in responses:
            image_shape, depth_shape = header["shapes"]
            pixels = math.prod(image_shape)
            image = np.frombuffer(body, np.uint8, pixels).reshape(image_shape)
            metres = np.frombuffer(body, np.float32, offset=pixels).reshape(depth_shape)
            yield image, metres


def read_official_split(path: Path) -> tuple[list[int], list[int]]:
    """Return the training and test frames of `splits.mat`, counted from 0."""
    if mat_version(path) != "v5":
        raise DataError(f"{path}: not the v5 file splits.mat; get it from {SOURCE}")
    with closing(_responses(path, {"kind": "official_split"})) as responses:
        found, _ = next(responses)
    train, test = (
        [number - 1 for number in found[name]] for name in ("trainNdxs", "testNdxs")
    )
    return train, test


def file_md5(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def require_published(path: Path) -> None:
    """Raise DataError unless the MD5 of the file is that of the published one."""
    found = file_md5(path)
    if found != PUBLISHED_MD5:
        raise DataError(
            f"{path}: MD5 {found}, but the published file has {PUBLISHED_MD5}; get it again "
            f"from {SOURCE}, or set data.verify=false for another file of this layout"
        )


def _frame(version: str) -> tuple[int, int] | None:
    return FRAME if version == "v7.3" else None


def _start_reader(request: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        # -P: no other folder may shadow installed modules.
        [sys.executable, "-P", os.fspath(_READER), request],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )


def _responses(path: Path, request: dict[str, Any]) -> Generator[Response]:
    """Yield the responses of the parsing process to a request.

    Raises DataError if the process refuses the file, crashes or stalls.
    """
    reader = _start_reader(json.dumps({**request, "path": os.fspath(path)}))
    assert reader.stdout is not None
    stalled = threading.Event()

    def stop() -> None:
        stalled.set()
        reader.kill()

    try:
        while True:
            watch = threading.Timer(SILENCE, stop)
            watch.start()
            try:
                line = reader.stdout.readline()
                header = json.loads(line) if line.endswith(b"\n") else {}
                pixels, metres = map(math.prod, header.get("shapes", [[0], [0]]))
                body = reader.stdout.read(pixels + 4 * metres)
            finally:
                watch.cancel()
            if "refused" in header:
                raise DataError(f"{path}: {header['refused']}")
            if "done" in header:
                return
            if not header or len(body) < pixels + 4 * metres:
                break
            yield header, body
        code = reader.wait()
    finally:
        reader.kill()
        reader.wait()
        reader.stdout.close()
    if stalled.is_set():
        raise DataError(
            f"{path}: no data for {SILENCE:.0f} s while it was read; it is damaged, or its "
            "disk is too slow"
        )
    ended = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    raise DataError(f"{path}: reading it ended with {ended}; it is damaged; {GET_IT}")
