"""Choose the transform of a boundary: which backend, which kernels."""

from collections.abc import Sequence

import torch

from imex_experiments.operators.boundary import require_boundary
from imex_experiments.operators.kernels.available import (
    TRITON,
    built,
    emulated,
    in_one_pass,
)
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


def require_backend(name: str, boundary: str = "periodic") -> str:
    """The name itself; ValueError for an unknown one, or one that cannot be used here.

    A backend that is asked for is used or refused; `auto` alone chooses another one.
    """
    if name not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {name!r}")
    if name == "fused" and boundary != "periodic":
        raise ValueError(f"backend=fused has no {boundary} boundary; take backend=auto")
    if name == "fused" and not (
        built() or emulated() or (TRITON and torch.cuda.is_available())
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
