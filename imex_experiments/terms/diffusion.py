"""The implicit operator L: `L(y)` applies it, `L.solve(y, h)` applies (I + h L)^-1.

L acts on each channel separately and is positive semi-definite. alpha scales it: alpha = 0
makes the solve the identity, bit for bit. alpha is a number; or "learned", one trained value
per channel; or "auto", one value that `callbacks.AutoAlpha` sets during training.

Shapes: y (B, C, H, W); stencils (C, k, k); symbols as in `operators.stencils`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from imex_experiments.operators.boundary import require_boundary
from imex_experiments.operators.implicit_conv import (
    solve_gram,
    solve_symbol,
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
    """An operator L = F^-1 (alpha lambda) F on each channel, F the boundary's transform.

    A subclass returns lambda from `symbol`; it need not be that of a stencil.

    The symbol is computed from the weights in every call and never cached, so that a
    changed weight always takes effect.
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
        """Return alpha: a number; (C, 1, 1) if it is learned, () if it is auto."""
        if isinstance(self.strength, nn.Module):
            return self.strength()
        return self.strength

    @property
    def absent(self) -> bool:
        """Return True if alpha is the number 0, so that L = 0."""
        return self.strength == 0

    @abstractmethod
    def symbol(self, size: tuple[int, int]) -> Tensor:
        """Return lambda(k) >= 0, the symbol of L / alpha for images (H, W).

        It broadcasts to (C, H, W // 2 + 1) for a periodic boundary, else to (C, H, W).
        """

    def forward(self, y: Tensor) -> Tensor:
        """Return L y."""
        return self.function(y, lambda eigenvalues: eigenvalues)

    def solve(self, y: Tensor, h: float | Tensor) -> Tensor:
        """Return (I + h L)^-1 y."""
        return y if self.absent else self._solve(y, h * self.alpha)

    def _solve(self, y: Tensor, c: float | Tensor) -> Tensor:
        """Return (I + c L / alpha)^-1 y, for c = h alpha."""
        symbol = self.symbol((y.shape[-2], y.shape[-1]))
        return solve_symbol(y, symbol, c, self.boundary, self.backend)

    def function(self, y: Tensor, g: Callable[[Tensor], Tensor]) -> Tensor:
        """Return g(L) y; g maps a tensor of eigenvalues of L elementwise."""
        if self.absent:
            return g(y.new_zeros(())) * y
        symbol = self.alpha * self.symbol((y.shape[-2], y.shape[-1]))
        return symbol_product(y, g(symbol), self.boundary, self.backend)

    def extra_repr(self) -> str:
        return f"{self.channels}, alpha={self.strength}, boundary={self.boundary}"


def _strength(alpha: Alpha, channels: int) -> float | Positive | Chosen:
    """Return what provides alpha: the number itself or a module.

    Raises ValueError for a number that is negative or not finite, and for another text.
    """
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
    """The operator L = alpha I, whose solve divides by 1 + h alpha (IMEXnet, Theorem 1)."""

    def symbol(self, size: tuple[int, int]) -> Tensor:
        return torch.ones(1, 1, 1)

    def forward(self, y: Tensor) -> Tensor:
        return self.alpha * y

    def _solve(self, y: Tensor, c: float | Tensor) -> Tensor:
        return y / (1 + c)

    def function(self, y: Tensor, g: Callable[[Tensor], Tensor]) -> Tensor:
        return g(torch.as_tensor(self.alpha, dtype=y.dtype, device=y.device)) * y


class LaplacianDiffusion(Diffusion):
    """The nine-point negative Laplacian times alpha (IMEXnet eq. 7), without weights."""

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
    """The operator L = alpha B^T B, B a trainable depthwise stencil of zero mean.

    The parameter B is unconstrained; `taps` subtracts its mean. B starts from U[0, 1) as
    published (`init="uniform"`), or from the Laplacian of IMEXnet eq. 7
    (`init="laplacian"`), with which L starts as a biharmonic operator. Raises ValueError
    for an even kernel size or one below 3.
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
        # A forked generator: drawing B must not change the random numbers of f, so that
        # explicit and implicit networks of one seed start from the same f.
        with torch.random.fork_rng(devices=[]):
            taps = (
                torch.rand(channels, kernel_size, kernel_size)
                if init == "uniform"
                else laplacian(kernel_size).repeat(channels, 1, 1)
            )
        self.B = nn.Parameter(taps)

    @property
    def taps(self) -> Tensor:
        """Return B minus its mean, (C, k, k)."""
        return zero_mean(self.B)

    def symbol(self, size: tuple[int, int]) -> Tensor:
        return gram_symbol(self.taps, size, self.boundary)

    def _solve(self, y: Tensor, c: float | Tensor) -> Tensor:
        return solve_gram(y, self.taps, c, self.boundary, self.backend)


class NormedGramDiffusion(GramDiffusion):
    """A `GramDiffusion` with a batch norm N before the solve, (I + h L)^-1 N(y).

    With `ImexEuler` the step is S N(Y + h f), S = (I + h L)^-1, as in the released IMEXnet
    code. There N is also the norm of the layer; here N has its own weights.
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

    Shapes: (B, C, H, W) to the same. It has k^2 weights per channel. It smooths and never
    amplifies; a larger h alpha smooths over longer distances.
    Raises ValueError for h < 0, alpha < 0 or an even kernel size.
    Source: IMEXnet, Algorithm 1.
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
