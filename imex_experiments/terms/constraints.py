"""What the weights of a convolution must satisfy, as a parametrisation of them.

The optimizer sees an unconstrained tensor of the same shape; the constraint holds at every
evaluation, exactly.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from imex_experiments.terms.layers import Convolution


class Bounded(nn.Module):
    """K = c tanh(V / c): every weight in [-c, c]. ValueError unless c > 0 is finite.

    Source: DynamicBlocks, which clips the weights after every update instead.
    """

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.bound = _positive("bound", bound)

    def forward(self, V: Tensor) -> Tensor:
        return self.bound * torch.tanh(V / self.bound)

    def right_inverse(self, K: Tensor) -> Tensor:
        """V of a given K; weights near the bound or outside start just inside of it."""
        return self.bound * torch.atanh((K / self.bound).clamp(-0.99, 0.99))


class SpectralNorm(nn.Module):
    """K = s V / |V|_2, V as a matrix (C_out, C_in k^2). ValueError unless s > 0 is finite.

    |V|_2 is the largest singular value itself, no power iteration, so that nothing but
    the weights decides K. The convolution's own norm is at most k s.
    Source: Miyato et al., Spectral normalization (2018), eq. 8.
    """

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = _positive("scale", scale)

    def forward(self, V: Tensor) -> Tensor:
        return self.scale * V / torch.linalg.matrix_norm(V.flatten(1), ord=2)


def constrain(module: nn.Module, constraint: Callable[[], nn.Module]) -> None:
    """Put a constraint of its own on every convolution of a module."""
    for part in list(module.modules()):
        if isinstance(part, Convolution):
            register_parametrization(part, "weight", constraint())


def _positive(name: str, value: float) -> float:
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be > 0 and finite, got {value}")
    return value
