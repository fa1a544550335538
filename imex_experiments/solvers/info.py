"""How a solve went, sample by sample.

Shapes: x (B, ...); everything per sample is (B,).
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class SolveInfo:
    """The residual that was reached, after how many iterations, and whether it is enough."""

    residual: Tensor
    iterations: Tensor
    converged: Tensor


def dot(x: Tensor, y: Tensor) -> Tensor:
    """<x, y> of each sample, (B,)."""
    return (x * y).flatten(1).sum(1)


def norm(x: Tensor) -> Tensor:
    """The Euclidean norm of each sample, (B,)."""
    return x.flatten(1).norm(dim=1)


def rms(x: Tensor) -> Tensor:
    """The root mean square over the entries of each sample, (B,)."""
    return x.flatten(1).square().mean(1).sqrt()


def scale(factor: Tensor, x: Tensor) -> Tensor:
    """factor (B,) times x (B, ...)."""
    return factor.view(-1, *[1] * (x.ndim - 1)) * x
