"""The product of `fused` on a CPU: builds `fused.cpp` once on a machine, and calls it.

Shapes: images x, y, g (B, C, H, W), factors t (C, H, W // 2 + 1), float32 or float64.
"""

import ctypes
import hashlib
import logging
import os
import shlex
import stat
import subprocess
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from imex_experiments.operators.kernels.autograd import make_differentiable

log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("fused.cpp")

FLAGS = ("-O3", "-std=c++17", "-fopenmp", "-fPIC", "-shared")

VECTORS = {
    "AVX512": ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"),
    "AVX2": ("-mavx2", "-mfma"),
}
"""What torch says of a processor -> the compiler's words for its vectors."""


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; None, and why in the log, where they cannot be built.

    They are kept beside cached data, by what they are made of: source and flags. Code of
    another user is never loaded, nor a damaged file: see `_kept` and `_verified`.
    """
    cached = Path(os.environ.get("IMEX_CACHE") or "~/.cache/imex-experiments")
    flags = (*FLAGS, *VECTORS.get(torch.backends.cpu.get_cpu_capability(), ()))
    made_of = SOURCE.read_bytes() + " ".join(flags).encode()
    name = f"fused-{hashlib.sha256(made_of).hexdigest()[:16]}"
    compiler = shlex.split(os.environ.get("CXX") or "g++")
    command = [*compiler, *flags, str(SOURCE)]
    try:
        found = _kept(cached.expanduser() / f"kernels-{_user()}", name, command)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        log.info(
            "no kernels for this CPU, implicit steps are solved by torch.fft: %s",
            said.strip().splitlines()[0],
        )
        return None
    found.chunks.restype = ctypes.c_int64
    for name in ("product", "gradients"):
        for dtype in ("float32", "float64"):
            getattr(found, f"{name}_{dtype}").restype = ctypes.c_bool
    return found


def _kept(folder: Path, name: str, command: list[str]) -> ctypes.CDLL:
    """Return `<name>-<SHA-256>.so` of a folder, compiled where none of them verifies.

    A cache may be shared, so each user has a folder in it. One that somebody else made, or
    may write to, is not used: the library is then compiled for this process alone.
    """
    with suppress(FileExistsError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
    if not _is_ours(folder.lstat(), stat.S_IFDIR):
        log.warning("%s: others can write there; kernels are compiled anew", folder)
        with tempfile.TemporaryDirectory() as own:
            return _compiled(Path(own), name, command)
    for path in sorted(folder.glob(f"{name}-*.so")):
        with suppress(OSError):
            return _verified(path)
        path.unlink(missing_ok=True)
    return _compiled(folder, name, command)


def _compiled(folder: Path, name: str, command: list[str]) -> ctypes.CDLL:
    """Compile beside the library's place, so that others see all of it or none."""
    with tempfile.TemporaryDirectory(dir=folder) as beside:
        made = Path(beside) / f"{name}.so"
        command = [*command, "-o", str(made)]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
        made.chmod(0o700)
        digest = hashlib.sha256(made.read_bytes()).hexdigest()
        path = made.replace(folder / f"{name}-{digest}.so")
    return _verified(path)


def _verified(path: Path) -> ctypes.CDLL:
    """Load a library that is ours and has the digest of its name; OSError for another.

    What is loaded is the file that was read, whatever takes its name meanwhile. The
    loader itself would not notice damage, and the process would die of it.
    """
    with open(os.open(path, os.O_RDONLY | NOT_A_LINK), "rb") as file:
        if not _is_ours(os.fstat(file.fileno()), stat.S_IFREG):
            raise OSError(f"{path}: others can write to it")
        if hashlib.sha256(file.read()).hexdigest() != path.stem.rpartition("-")[2]:
            raise OSError(f"{path}: damaged")
        opened = Path(f"/proc/self/fd/{file.fileno()}")
        return ctypes.CDLL(str(opened if opened.exists() else path))


NOT_A_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""Flags of open: neither follow a link nor wait for the writer of a FIFO."""


def _is_ours(found: os.stat_result, kind: int) -> bool:
    """Tell if a file or folder is of this user and kind, and nobody else can write it."""
    writable = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return (
        stat.S_IFMT(found.st_mode) == kind and found.st_uid == _user() and not writable
    )


def _user() -> int:
    """The number of the user; 0 on Windows, as its files have it."""
    return os.getuid() if hasattr(os, "getuid") else 0


@torch.library.custom_op(
    "imex_experiments::cpp_product", mutates_args=(), device_types="cpu"
)
def product(x: Tensor, t: Tensor) -> Tensor:
    """F^-1 (t F x)."""
    x, t = x.contiguous(), t.contiguous()
    y = torch.empty_like(x)
    _call("product", x, t, y, like=x)
    return y


@torch.library.custom_op(
    "imex_experiments::cpp_gradients", mutates_args=(), device_types="cpu"
)
def gradients(g: Tensor, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Those of <g, product(x, t)> in x and in t."""
    g, x, t = g.contiguous(), x.contiguous(), t.contiguous()
    grad_x = torch.empty_like(x)
    chunks = kernels().chunks(*_sizes(x)[:2], torch.get_num_threads())
    grad_t = t.new_empty((chunks, *t.shape))
    _call("gradients", g, x, t, grad_x, grad_t, like=x)
    return grad_x, grad_t.sum(0) if chunks > 1 else grad_t[0]


make_differentiable(product, gradients)


def kernels() -> ctypes.CDLL:
    """The library, RuntimeError where there is none."""
    found = library()
    if found is None:
        raise RuntimeError("the kernels of backend=fused could not be built")
    return found


def _call(name: str, *tensors: Tensor, like: Tensor) -> None:
    function = getattr(kernels(), f"{name}_{str(like.dtype).removeprefix('torch.')}")
    at = (ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors)
    if not function(*at, *_sizes(like), torch.get_num_threads()):
        raise MemoryError(f"no memory to solve for images of {tuple(like.shape)}")


def _sizes(x: Tensor) -> tuple[ctypes.c_int64, ctypes.c_int64, int, int]:
    batch, channels, height, width = x.shape
    return ctypes.c_int64(batch), ctypes.c_int64(channels), height, width
