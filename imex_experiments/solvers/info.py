"""The report of a solve, and inner products and norms of each sample.

Shapes: x, y (B, ...); one value per sample (B,).
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class SolveInfo:
    """The report of a solve, with one entry per sample, (B,)."""

    residual: Tensor
    """The final residual, in the norm that the solver documents."""
    iterations: Tensor
    """The number of iterations, int64."""
    converged: Tensor
    """True where the residual is within the tolerance; NaN is not."""


def dot(x: Tensor, y: Tensor) -> Tensor:
    """Return the inner product <x, y> of each sample, (B,)."""
    return (x * y).flatten(1).sum(1)


def norm(x: Tensor) -> Tensor:
    """Return the Euclidean norm of each sample, (B,)."""
    return x.flatten(1).norm(dim=1)


def rms(x: Tensor) -> Tensor:
    """Return the root mean square over the entries of each sample, (B,)."""
    return x.flatten(1).square().mean(1).sqrt()


def scale(factor: Tensor, x: Tensor) -> Tensor:
    """Return x (B, ...) with each sample multiplied by its factor (B,)."""
    return factor.view(-1, *[1] * (x.ndim - 1)) * x
