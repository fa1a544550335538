"""Choose the transform of a boundary: which backend, which kernels."""

import importlib.util
import os
from collections.abc import Sequence

import torch
from torch import Tensor

from imex_experiments.operators.boundary import require_boundary
from imex_experiments.operators.kernels import cpp as fused_cpp
from imex_experiments.operators.transforms import (
    DirichletFft,
    DirichletGemm,
    NeumannFft,
    NeumannGemm,
    PeriodicCpp,
    PeriodicFft,
    PeriodicGemm,
    PeriodicTriton,
    Transform,
)

BACKENDS = ("auto", "fft", "gemm", "fused")

TRITON_DTYPES = (torch.float32, torch.bfloat16, torch.float16)

TRITON = importlib.util.find_spec("triton") is not None
"""Whether there is a compiler for the kernels of `fused_triton`."""

SHARED_MEMORY = 160 * 2**10
"""Bytes that a program of `fused_triton` takes at most, of float32 planes of 64 x 64 or
half-precision ones of 128 x 128."""


def in_one_pass(size: Sequence[int], dtype: torch.dtype) -> bool:
    """Tell if a program of `fused_triton` holds a plane (H, W) as a whole."""
    sides = {*size}
    return sides <= {32, 64} or (sides <= {64, 128} and dtype.itemsize == 2)


def require_backend(name: str, boundary: str = "periodic") -> str:
    """The name itself; ValueError for an unknown one, or one that cannot be used here.

    A backend that is asked for is used or refused; `auto` alone chooses another one.
    """
    if name not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {name!r}")
    if name == "fused" and boundary != "periodic":
        raise ValueError(f"backend=fused has no {boundary} boundary; take backend=auto")
    if name == "fused" and not (
        _built() or _emulated() or (TRITON and torch.cuda.is_available())
    ):
        raise ValueError(
            "backend=fused needs g++ for a CPU, triton for a CUDA device; "
            "take backend=auto"
        )
    return name


TRANSFORMS: dict[tuple[str, str], type[Transform]] = {
    ("periodic", "fft"): PeriodicFft,
    ("periodic", "gemm"): PeriodicGemm,
    ("periodic", "triton"): PeriodicTriton,
    ("periodic", "cpp"): PeriodicCpp,
    ("neumann", "fft"): NeumannFft,
    ("neumann", "gemm"): NeumannGemm,
    ("dirichlet", "fft"): DirichletFft,
    ("dirichlet", "gemm"): DirichletGemm,
}


def choose(
    size: tuple[int, int],
    boundary: str,
    backend: str = "auto",
    kernels: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Transform:
    """The transform of a boundary for images (H, W); `auto` takes the faster backend.

    `kernels` are those that `fused` runs on these images, `triton` or `cpp`; where there
    are none, the plain operations of `gemm` take their place.
    ValueError for unknown names and for a boundary without kernels.
    """
    require_boundary(boundary)
    if require_backend(backend, boundary) == "auto":
        backend = _faster(size, boundary, kernels, dtype)
    elif backend == "fused":
        backend = kernels or "gemm"
    return TRANSFORMS[boundary, backend](size)


def kernels_for(x: Tensor) -> str | None:
    """The kernels of `fused` that can be run on images like x."""
    if needs_plain_operations(x):
        return None
    if TRITON and x.dtype in TRITON_DTYPES and _has_room(x.device):
        return "triton"
    if x.is_cpu and _built():
        return "cpp"
    return None


def needs_plain_operations(x: Tensor) -> bool:
    """Tell if somebody else computes with images like x: no kernel of ours can be run.

    torch.func maps and derives torch's operations alone, an exported graph runs without
    this package, and on the meta device nothing is computed.
    """
    mapped = torch._C._are_functorch_transforms_active()
    return mapped or torch.compiler.is_exporting() or x.is_meta


@torch.compiler.assume_constant_result
def _has_room(device: torch.device) -> bool:
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        # Devices of other makers do not tell.
        return getattr(properties, "shared_memory_per_block_optin", 0) >= SHARED_MEMORY
    return device.type == "cpu" and _emulated()


def _emulated() -> bool:
    """Whether Triton interprets its kernels on a CPU."""
    return TRITON and os.environ.get("TRITON_INTERPRET") == "1"


@torch.compiler.assume_constant_result
def _built() -> bool:
    """Whether the kernels for CPUs are there, or could be built."""
    return fused_cpp.library() is not None


def _faster(
    size: tuple[int, int], boundary: str, kernels: str | None, dtype: torch.dtype
) -> str:
    """Return the backend that took the least time in docs/performance.md.

    Kernels for CPUs are the fastest for periodic images, those of Triton where they take
    one pass. The time of a product of matrices grows with H + W. That of an FFT hardly does,
    but it is three times as long for sides with a prime factor above 7, and that of the
    extended images of neumann and dirichlet boundaries six times or more.
    """
    if boundary == "periodic" and kernels == "cpp":
        return "cpp"
    if boundary == "periodic" and kernels == "triton":
        return "triton" if in_one_pass(size, dtype) else "fft"
    if torch.compiler.is_compiling():  # neither Inductor nor ONNX knows an inverse FFT
        return "gemm"
    rough = _largest_prime_factor(size) > 7
    limit = 1024 if boundary != "periodic" else 256 if rough else 0
    return "gemm" if sum(size) <= limit else "fft"


def _largest_prime_factor(sides: Sequence[int]) -> int:
    """Of both sides together; FFT libraries have kernels up to 7."""
    largest, rest = 1, sides[0] * sides[1]
    factor = 2
    while factor * factor <= rest:
        while rest % factor == 0:
            largest, rest = factor, rest // factor
        factor += 1
    return max(largest, rest)
