"""The implicit operator L: `L(y)` applies it, `L.solve(y, h)` applies (I + h L)^-1.

Shapes: y (B, C, H, W); L acts on every channel by itself and is positive semi-definite.
alpha scales L everywhere, and alpha = 0 makes the solve the identity, bit for bit. It is a
number, or "learned", one per channel, or "auto", one that somebody else chooses while the
network is trained (`callbacks.AutoAlpha`).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from imex_experiments.operators.boundary import require_boundary
from imex_experiments.operators.implicit_conv import (
    implicit_gram_conv,
    resolvent,
    symbol_product,
)
from imex_experiments.operators.select import require_backend
from imex_experiments.operators.stencils import (
    even_symbol,
    gram_symbol,
    laplacian,
    require_odd,
    zero_mean,
)
from imex_experiments.terms.positive import FIRST_ALPHA, Chosen, Positive

Alpha = float | Literal["auto", "learned"]


class Diffusion(nn.Module, ABC):
    """L = alpha x a stencil, diagonal in the transform of its boundary.

    Every call computes its symbol anew from the weights, so that no way to change a
    weight can go unnoticed.
    """

    def __init__(
        self,
        channels: int,
        alpha: Alpha,
        boundary: str = "periodic",
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.channels = channels
        self.strength: float | Positive | Chosen = _strength(alpha, channels)
        self.boundary = require_boundary(boundary)
        self.backend = require_backend(backend, boundary)

    @property
    def alpha(self) -> float | Tensor:
        """The number, (C, 1, 1) if it is learned, () if it is chosen."""
        if isinstance(self.strength, nn.Module):
            return self.strength()
        return self.strength

    @property
    def absent(self) -> bool:
        """Whether alpha is 0, so that there is no L."""
        return self.strength == 0

    @abstractmethod
    def symbol(self, size: tuple[int, int]) -> Tensor:
        """lambda(k) / alpha >= 0 at the given image size (H, W)."""

    def forward(self, y: Tensor) -> Tensor:
        """L y."""
        symbol = self.alpha * self.symbol((y.shape[-2], y.shape[-1]))
        return symbol_product(y, symbol, self.boundary, self.backend)

    def solve(self, y: Tensor, h: float | Tensor) -> Tensor:
        """(I + h L)^-1 y."""
        if self.absent:
            return y
        symbol = self.symbol((y.shape[-2], y.shape[-1]))
        t = resolvent(symbol, h * self.alpha)
        return symbol_product(y, t, self.boundary, self.backend)

    def function(self, y: Tensor, g: Callable[[Tensor], Tensor]) -> Tensor:
        """g(L) y for a real function g of the eigenvalues lambda of L, elementwise."""
        if self.absent:
            return g(y.new_zeros(())) * y
        symbol = self.alpha * self.symbol((y.shape[-2], y.shape[-1]))
        return symbol_product(y, g(symbol), self.boundary, self.backend)

    def extra_repr(self) -> str:
        return f"{self.channels}, alpha={self.strength}, boundary={self.boundary}"


def _strength(alpha: Alpha, channels: int) -> float | Positive | Chosen:
    if alpha == "learned":
        return Positive(FIRST_ALPHA, channels, 1, 1)
    if alpha == "auto":
        return Chosen(FIRST_ALPHA)
    if isinstance(alpha, str) or not (alpha >= 0 and math.isfinite(alpha)):
        raise ValueError(
            f"alpha must be >= 0 and finite, got {alpha} (or give auto or learned)"
        )
    return float(alpha)


class IdentityDiffusion(Diffusion):
    """L = alpha I: the solve divides by 1 + h alpha (IMEXnet, Theorem 1)."""

    def symbol(self, size: tuple[int, int]) -> Tensor:
        return torch.ones(1, 1, 1)

    def forward(self, y: Tensor) -> Tensor:
        return self.alpha * y

    def solve(self, y: Tensor, h: float | Tensor) -> Tensor:
        return y / (1 + h * self.alpha)

    def function(self, y: Tensor, g: Callable[[Tensor], Tensor]) -> Tensor:
        return g(torch.as_tensor(self.alpha, dtype=y.dtype, device=y.device)) * y


class LaplacianDiffusion(Diffusion):
    """L = alpha x the nine-point negative Laplacian (IMEXnet eq. 7), no weights."""

    stencil: Tensor

    def __init__(
        self,
        channels: int,
        alpha: Alpha,
        boundary: str = "periodic",
        backend: str = "auto",
    ) -> None:
        super().__init__(channels, alpha, boundary, backend)
        self.register_buffer("stencil", laplacian()[None], persistent=False)

    def symbol(self, size: tuple[int, int]) -> Tensor:
        return even_symbol(self.stencil, size, self.boundary)


class GramDiffusion(Diffusion):
    """L = alpha B^T B, B a trainable depthwise stencil used after subtracting its mean.

    The mean is taken off in `taps`, never in the parameter, so that any optimizer sees
    an unconstrained B. B starts from U[0, 1) as published (`init="uniform"`) or from
    eq. 7 (`init="laplacian"`), which makes L a biharmonic operator at first.
    """

    def __init__(
        self,
        channels: int,
        alpha: Alpha,
        boundary: str = "periodic",
        kernel_size: int = 3,
        init: Literal["uniform", "laplacian"] = "uniform",
        backend: str = "auto",
    ) -> None:
        super().__init__(channels, alpha, boundary, backend)
        require_odd(kernel_size, at_least=3)
        # A forked generator leaves the weights of f where a network without L has them,
        # so that explicit and implicit networks of one seed start from the same f.
        with torch.random.fork_rng(devices=[]):
            taps = (
                torch.rand(channels, kernel_size, kernel_size)
                if init == "uniform"
                else laplacian(kernel_size).repeat(channels, 1, 1)
            )
        self.B = nn.Parameter(taps)

    @property
    def taps(self) -> Tensor:
        """B with zero mean, (C, k, k)."""
        return zero_mean(self.B)

    def symbol(self, size: tuple[int, int]) -> Tensor:
        return gram_symbol(self.taps, size, self.boundary)

    def solve(self, y: Tensor, h: float | Tensor) -> Tensor:
        if self.absent:
            return y
        scale = h * self.alpha
        return implicit_gram_conv(y, self.taps, scale, self.boundary, self.backend)


class NormedGramDiffusion(GramDiffusion):
    """A batch norm N before the solve: solve(y, h) = (I + h L)^-1 N(y).

    With `DiffusionReaction` it gives S(N(Y + h f)), the step of the released IMEXnet code
    (which shares N with the layer's own norm; here N has its own weights).
    """

    def __init__(
        self,
        channels: int,
        alpha: Alpha,
        boundary: str = "periodic",
        kernel_size: int = 3,
        init: Literal["uniform", "laplacian"] = "uniform",
        backend: str = "auto",
    ) -> None:
        super().__init__(channels, alpha, boundary, kernel_size, init, backend)
        self.norm = nn.BatchNorm2d(channels)

    def solve(self, y: Tensor, h: float | Tensor) -> Tensor:
        return super().solve(self.norm(y), h)


class ImplicitConv2d(nn.Module):
    """A drop-in layer that couples all pixels of a channel: y = (I + h alpha B^T B)^-1 x.

    Shapes: (B, C, H, W) to the same. 9 weights per channel; smooths at scale
    sqrt(h alpha) in the units of B and never amplifies. ValueError for h < 0, alpha < 0
    or an even kernel. Source: IMEXnet, Algorithm 1.
    """

    def __init__(
        self,
        channels: int,
        h: float = 1.0,
        alpha: float = 1.0,
        kernel_size: int = 3,
        init: Literal["uniform", "laplacian"] = "laplacian",
        boundary: str = "periodic",
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if not (h >= 0 and math.isfinite(h)):
            raise ValueError(f"h must be >= 0 and finite, got {h}")
        self.h = h
        self.L = GramDiffusion(channels, alpha, boundary, kernel_size, init, backend)

    def forward(self, x: Tensor) -> Tensor:
        return self.L.solve(x, self.h)

    def extra_repr(self) -> str:
        return f"h={self.h}"
