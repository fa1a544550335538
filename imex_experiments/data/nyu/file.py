"""`nyu_depth_v2_labeled.mat`, or a small v5 subset of it: what it holds, and its frames.

What a few bytes can tell is checked here; the rest is parsed by `reader` in a process of
its own, so that a damaged file is one line and never a crash.

Shapes: image (3, H, W) uint8; depth (H, W) float32, metres, as stored: 0 or less, NaN and Inf
where there is none.
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
"""Seconds the parsing process may take from one answer to the next."""

Answer = tuple[dict[str, Any], bytes]

_READER = Path(__file__).with_name("reader.py")
_SIGNATURE = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class NyuContents:
    """What a file says of its N frames: the scene and the type of scene of each.

    A v5 subset may lack them: every frame is then a scene of its own and has no type.
    `datasets` are rows of name, shape and type.
    """

    version: str
    scenes: list[str]
    scene_types: list[str] | None
    datasets: list[list[str]]


def mat_version(path: Path) -> str:
    """ "v7.3" or "v5", from the first bytes; DataError for what is no whole .mat file."""
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
    """DataError if the file ends before the end that its HDF5 superblock records."""
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
    """Scenes and types of all frames, after the whole layout has been checked."""
    version = mat_version(path)
    request = {"ask": f"describe_{version}", "depth": depth, "frame": _frame(version)}
    with closing(_answers(path, request)) as answers:
        answer, _ = next(answers)
    scenes = answer["scenes"]
    if scenes is None:
        scenes = [f"frame {index}" for index in range(answer["number"])]
    return NyuContents(version, scenes, answer["scene_types"], answer["datasets"])


def read_frames(
    path: Path, indices: Sequence[int], depth: str = "depths"
) -> Generator[tuple[np.ndarray, np.ndarray]]:
    """Image and depth of each of the frames, one at a time."""
    version = mat_version(path)
    request = {
        "ask": f"frames_{version}",
        "depth": depth,
        "frame": _frame(version),
        "indices": list(indices),
    }
    with closing(_answers(path, request)) as answers:
        for answer, body in answers:
            image_shape, depth_shape = answer["shapes"]
            pixels = math.prod(image_shape)
            image = np.frombuffer(body, np.uint8, pixels).reshape(image_shape)
            metres = np.frombuffer(body, np.float32, offset=pixels).reshape(depth_shape)
            yield image, metres


def read_official_split(path: Path) -> tuple[list[int], list[int]]:
    """Frames for training and testing of `splits.mat`, counted from 0."""
    if mat_version(path) != "v5":
        raise DataError(f"{path}: not the v5 file splits.mat; get it from {SOURCE}")
    with closing(_answers(path, {"ask": "official_split"})) as answers:
        answer, _ = next(answers)
    train, test = (
        [number - 1 for number in answer[name]] for name in ("trainNdxs", "testNdxs")
    )
    return train, test


def file_md5(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def require_published(path: Path) -> None:
    """DataError unless the file is, bit for bit, the published one."""
    found = file_md5(path)
    if found != PUBLISHED_MD5:
        raise DataError(
            f"{path}: MD5 {found}, but the published file has {PUBLISHED_MD5}; get it again "
            f"from {SOURCE}, or set data.verify=false for another file of this layout"
        )


def _frame(version: str) -> tuple[int, int] | None:
    return FRAME if version == "v7.3" else None


def _answers(path: Path, request: dict[str, Any]) -> Generator[Answer]:
    """Answers of the parsing process; DataError if it refuses, crashes or stalls."""
    words = json.dumps({**request, "path": os.fspath(path)})
    reader = subprocess.Popen(
        # -P: modules of this folder must not stand in for installed ones.
        [sys.executable, "-P", os.fspath(_READER), words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
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
                answer = json.loads(line) if line.endswith(b"\n") else {}
                pixels, metres = map(math.prod, answer.get("shapes", [[0], [0]]))
                body = reader.stdout.read(pixels + 4 * metres)
            finally:
                watch.cancel()
            if "refused" in answer:
                raise DataError(f"{path}: {answer['refused']}")
            if "done" in answer:
                return
            if not answer or len(body) < pixels + 4 * metres:
                break
            yield answer, body
        code = reader.wait()
    finally:
        reader.kill()
        reader.wait()
        reader.stdout.close()
    if stalled.is_set():
        raise DataError(
            f"{path}: no answer for {SILENCE:.0f} s while it was read; it is damaged, or its "
            "disk is too slow"
        )
    ended = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    raise DataError(f"{path}: reading it ended with {ended}; it is damaged; {GET_IT}")
