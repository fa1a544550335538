"""Norms and activations, and the names under which a configuration selects them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class TvNorm(nn.Module):
    """A norm that scales the features of each pixel to length one, then adds b.

    y -> y / sqrt(sum_c y_c^2 + eps) + b. It uses no statistics of a batch or an image, so
    it suits interpolated weights and images of one pixel.
    Shapes: (B, C, H, W) to the same; b (C, 1, 1). Source: DynamicBlocks, TvNorm.
    """

    def __init__(self, channels: int, eps: float = 1e-4) -> None:
        super().__init__()
        self.eps = eps
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, y: Tensor) -> Tensor:
        length = (y.square().sum(1, keepdim=True) + self.eps).sqrt()
        return y / length + self.bias


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "instance": lambda channels: nn.InstanceNorm2d(channels, affine=True),
    "group": lambda channels: nn.GroupNorm(1, channels),
    "tv": TvNorm,
    "none": lambda channels: nn.Identity(),
}

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
    "none": nn.Identity,
}


def make_norm(name: str, channels: int) -> nn.Module:
    """Return a new norm; ValueError with the choices for an unknown name."""
    if name not in NORMS:
        raise ValueError(f"norm must be one of {', '.join(NORMS)}, got {name!r}")
    return NORMS[name](channels)


def make_activation(name: str) -> nn.Module:
    """Return a new activation; ValueError with the choices for an unknown name."""
    if name not in ACTIVATIONS:
        raise ValueError(
            f"activation must be one of {', '.join(ACTIVATIONS)}, got {name!r}"
        )
    return ACTIVATIONS[name]()
