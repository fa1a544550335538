"""Constraints on the weights of a convolution, as parametrisations.

A parametrisation computes the kernel K (C_out, C_in, k, k) from a trained tensor V of the
same shape. V is unconstrained, and the constraint on K holds exactly at every evaluation.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from imex_experiments.terms.layers import Convolution


class Bounded(nn.Module):
    """A bound on every weight, |K| <= c, by K = c tanh(V / c).

    Raises ValueError unless c > 0 is finite. Source: DynamicBlocks, which clips the
    weights after every update instead.
    """

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.bound = _positive("bound", bound)

    def forward(self, V: Tensor) -> Tensor:
        return self.bound * torch.tanh(V / self.bound)

    def right_inverse(self, K: Tensor) -> Tensor:
        """Return V for a given K. Weights beyond 0.99 c in size are cut to 0.99 c first."""
        return self.bound * torch.atanh((K / self.bound).clamp(-0.99, 0.99))


class SpectralNorm(nn.Module):
    """A kernel of spectral norm s, K = s V / |V|_2, V read as a matrix (C_out, C_in k^2).

    |V|_2 is the largest singular value from a full decomposition, not from power
    iteration, so K depends on V alone. The norm of the convolution is at most k s.
    Raises ValueError unless s > 0 is finite.
    Source: Miyato et al., Spectral normalization (2018), eq. 8.
    """

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = _positive("scale", scale)

    def forward(self, V: Tensor) -> Tensor:
        return self.scale * V / torch.linalg.matrix_norm(V.flatten(1), ord=2)


def constrain(module: nn.Module, constraint: Callable[[], nn.Module]) -> None:
    """Register a new constraint on every convolution of a module."""
    for part in list(module.modules()):
        if isinstance(part, Convolution):
            register_parametrization(part, "weight", constraint())


def _positive(name: str, value: float) -> float:
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be > 0 and finite, got {value}")
    return value
