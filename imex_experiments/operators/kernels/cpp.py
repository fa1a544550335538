"""The C++ kernels: compile `fused.cpp` once per user and machine, load it, and call it.

Shapes: images x, y, g (B, C, H, W); transfer functions t (C, H, W // 2 + 1); both float32
or both float64.
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
"""Compiler flags of the vector instructions, by the name that torch has for them."""


@cache
def library() -> ctypes.CDLL | None:
    """Return the compiled kernels; None, with the reason in the log, if that fails.

    The library is cached beside the cached data. Its name holds a hash of source and flags,
    so that a change of either compiles it anew. A file of another user and a damaged file
    are never loaded (see `_kept` and `_verified`).
    """
    cached = Path(os.environ.get("IMEX_CACHE") or "~/.cache/imex-experiments")
    flags = (*FLAGS, *VECTORS.get(torch.backends.cpu.get_cpu_capability(), ()))
    recipe = SOURCE.read_bytes() + " ".join(flags).encode()
    name = f"fused-{hashlib.sha256(recipe).hexdigest()[:16]}"
    compiler = shlex.split(os.environ.get("CXX") or "g++")
    command = [*compiler, *flags, str(SOURCE)]
    try:
        found = _kept(cached.expanduser() / f"kernels-{_user()}", name, command)
    except (OSError, subprocess.SubprocessError) as error:
        message = getattr(error, "stderr", None) or str(error)
        log.info(
            "no kernels for this CPU, implicit steps are solved by torch.fft: %s",
            message.strip().splitlines()[0],
        )
        return None
    found.chunks.restype = ctypes.c_int64
    for name in ("product", "gradients"):
        for dtype in ("float32", "float64"):
            getattr(found, f"{name}_{dtype}").restype = ctypes.c_bool
    return found


def _kept(folder: Path, name: str, command: list[str]) -> ctypes.CDLL:
    """Load `<name>-<SHA-256>.so` from a folder; compile it if no such file is intact.

    A cache may be shared between users, so each user has a folder of its own in it. A
    folder that another user owns or can write to is not used. The library is then compiled
    into a temporary folder, for this process only.
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
    """Compile into a temporary folder and rename: others see a whole file or none."""
    with tempfile.TemporaryDirectory(dir=folder) as beside:
        made = Path(beside) / f"{name}.so"
        command = [*command, "-o", str(made)]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
        made.chmod(0o700)
        digest = hashlib.sha256(made.read_bytes()).hexdigest()
        path = made.replace(folder / f"{name}-{digest}.so")
    return _verified(path)


def _verified(path: Path) -> ctypes.CDLL:
    """Load a library that this user owns and whose SHA-256 is in its name.

    Raises OSError for any other file. The loader does not notice damage: the process would
    crash. The library is loaded from the open file descriptor, so it is the file that was
    hashed even if the path is replaced meanwhile.
    """
    with open(os.open(path, os.O_RDONLY | NOT_A_LINK), "rb") as file:
        if not _is_ours(os.fstat(file.fileno()), stat.S_IFREG):
            raise OSError(f"{path}: others can write to it")
        if hashlib.sha256(file.read()).hexdigest() != path.stem.rpartition("-")[2]:
            raise OSError(f"{path}: damaged")
        opened = Path(f"/proc/self/fd/{file.fileno()}")
        return ctypes.CDLL(str(opened if opened.exists() else path))


NOT_A_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""Flags for os.open: do not follow a link, do not wait for the writer of a FIFO."""


def _is_ours(found: os.stat_result, kind: int) -> bool:
    """Return True if an entry is of this kind, is this user's, and only they can write."""
    writable = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return (
        stat.S_IFMT(found.st_mode) == kind and found.st_uid == _user() and not writable
    )


def _user() -> int:
    """Return the user id; 0 on Windows, where every file has owner 0."""
    return os.getuid() if hasattr(os, "getuid") else 0


@torch.library.custom_op(
    "imex_experiments::cpp_product", mutates_args=(), device_types="cpu"
)
def product(x: Tensor, t: Tensor) -> Tensor:
    """Return F^-1 (t F x)."""
    x, t = x.contiguous(), t.contiguous()
    y = torch.empty_like(x)
    _call("product", x, t, y, like=x)
    return y


@torch.library.custom_op(
    "imex_experiments::cpp_gradients", mutates_args=(), device_types="cpu"
)
def gradients(g: Tensor, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of <g, product(x, t)> in x and in t."""
    g, x, t = g.contiguous(), x.contiguous(), t.contiguous()
    grad_x = torch.empty_like(x)
    chunks = kernels().chunks(*_sizes(x)[:2], torch.get_num_threads())
    grad_t = t.new_empty((chunks, *t.shape))
    _call("gradients", g, x, t, grad_x, grad_t, like=x)
    return grad_x, grad_t.sum(0) if chunks > 1 else grad_t[0]


make_differentiable(product, gradients)


def kernels() -> ctypes.CDLL:
    """Return the compiled kernels; RuntimeError if they could not be built."""
    found = library()
    if found is None:
        raise RuntimeError("the kernels of backend=fused could not be built")
    return found


def _call(name: str, *tensors: Tensor, like: Tensor) -> None:
    function = getattr(kernels(), f"{name}_{str(like.dtype).removeprefix('torch.')}")
    pointers = (ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors)
    if not function(*pointers, *_sizes(like), torch.get_num_threads()):
        raise MemoryError(f"no memory to solve for images of {tuple(like.shape)}")


def _sizes(x: Tensor) -> tuple[ctypes.c_int64, ctypes.c_int64, int, int]:
    batch, channels, height, width = x.shape
    return ctypes.c_int64(batch), ctypes.c_int64(channels), height, width
