"""The product of `fused` on a CPU: builds `fused.cpp` once on a machine, and calls it.

Shapes: images x, y, g (B, C, H, W), factors t (C, H, W // 2 + 1), float32 or float64.
"""

import ctypes
import hashlib
import logging
import os
import shlex
import subprocess
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from imex_experiments.operators import fused

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

    They are kept beside cached data, by what they are made of: source and flags.
    """
    folder = Path(os.environ.get("IMEX_CACHE") or "~/.cache/imex-experiments")
    flags = (*FLAGS, *VECTORS.get(torch.backends.cpu.get_cpu_capability(), ()))
    made_of = SOURCE.read_bytes() + " ".join(flags).encode()
    name = f"fused-{hashlib.sha256(made_of).hexdigest()[:16]}.so"
    compiler = shlex.split(os.environ.get("CXX") or "g++")
    try:
        found = _load(folder.expanduser() / name, [*compiler, *flags, str(SOURCE)])
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


def _load(path: Path, command: list[str]) -> ctypes.CDLL:
    """The library at its place, compiled if it is not there or damaged."""
    if path.is_file():
        with suppress(OSError):
            return ctypes.CDLL(str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    # Compiled beside its place, so that other processes see all of it or none.
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        command = [*command, "-o", str(made)]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
        made.replace(path)
    return ctypes.CDLL(str(path))


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


fused.make_differentiable(product, gradients)


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
