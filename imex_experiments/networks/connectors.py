"""Connectors before the blocks, which change width and resolution, and heads after them.

Shapes: images and features (B, C, H, W).
"""

from collections.abc import Callable

from torch import Tensor, nn

from imex_experiments.terms.layers import Convolution
from imex_experiments.terms.norms import make_activation, make_norm

POOLS: dict[str, Callable[[], nn.Module]] = {
    "none": nn.Identity,
    "average": lambda: nn.AvgPool2d(2),
    "max": lambda: nn.MaxPool2d(2),
}


class Connector(nn.Module):
    """The map P(sigma(N(K Y + b))) from C_in to C_out channels.

    A pool P halves height and width; pool="none" keeps them. Raises ValueError with the
    choices for an unknown pool, norm or activation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        padding: str = "zeros",
        norm: str = "batch",
        activation: str = "relu",
        pool: str = "none",
        bias: bool = False,
    ) -> None:
        super().__init__()
        if pool not in POOLS:
            raise ValueError(f"pool must be one of {', '.join(POOLS)}, got {pool!r}")
        self.K = Convolution(in_channels, out_channels, kernel_size, padding, bias)
        self.norm = make_norm(norm, out_channels)
        self.activation = make_activation(activation)
        self.pool = POOLS[pool]()

    def forward(self, y: Tensor) -> Tensor:
        return self.pool(self.activation(self.norm(self.K(y))))


class Head(nn.Conv2d):
    """A 1 x 1 convolution from features to outputs, one output per pixel."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = False) -> None:
        super().__init__(in_channels, out_channels, kernel_size=1, bias=bias)


class ClassHead(Head):
    """The mean of the features over the pixels, then a linear map: one output per image.

    Shapes: (B, C, H, W) to (B, K).
    """

    def forward(self, y: Tensor) -> Tensor:
        return super().forward(y.mean((-2, -1), keepdim=True)).flatten(1)


HEADS = {"dense": Head, "classes": ClassHead}
"""The heads by the names that a configuration uses."""
