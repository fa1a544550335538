"""Choose the transform for a boundary, an image size, and a backend."""

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
    """Return the name of a backend that can run on this machine with this boundary.

    Raises ValueError for an unknown name and for `fused` without kernels. A named backend
    is never replaced by another one; only `auto` chooses.
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
    """Return the transform of a boundary for images of `size` (H, W).

    backend="auto" takes the faster backend. backend="fused" takes `kernels`, which names
    the kernels that run on these images, `triton` or `cpp`; None falls back to `gemm`.
    Raises ValueError for unknown names and for `fused` with a boundary without kernels.
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

    For periodic images the C++ kernels are the fastest on a CPU. The Triton kernels are
    the fastest on a GPU if one pass is enough. Otherwise matrix products (`gemm`) compete
    with the FFT. Per pixel, the time of matrix products grows with H + W and the time of
    an FFT hardly grows. An FFT takes three times as long if a side has a prime factor
    above 7. For neumann and dirichlet boundaries, which extend the image, it takes six
    times as long or more.
    """
    if boundary == "periodic" and kernels == "cpp":
        return "cpp"
    if boundary == "periodic" and kernels == "triton":
        return "triton" if in_one_pass(size, dtype) else "fft"
    if torch.compiler.is_compiling():  # Inductor and ONNX have no inverse FFT
        return "gemm"
    rough = _largest_prime_factor(size) > 7
    limit = 1024 if boundary != "periodic" else 256 if rough else 0
    return "gemm" if sum(size) <= limit else "fft"


def _largest_prime_factor(sides: Sequence[int]) -> int:
    """Return the largest prime factor of H W. FFT libraries have kernels up to 7."""
    largest, rest = 1, sides[0] * sides[1]
    factor = 2
    while factor * factor <= rest:
        while rest % factor == 0:
            largest, rest = factor, rest // factor
        factor += 1
    return max(largest, rest)
