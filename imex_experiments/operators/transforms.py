"""The transforms F that make a stencil diagonal, per boundary and backend.

Shapes: images x (B, C, H, W); spectra X as the transform lays them out; symbols of a
periodic boundary (C, H, W // 2 + 1), of neumann and dirichlet boundaries (C, H, W).

Gradients take the inner product in which F^-1 is the adjoint of F,
<X, G> = sum_k w_k parts(X) parts(G): w = 1 for a real orthogonal transform, for half a
spectrum 1 / (H W) on self-conjugate columns (the first, and the last of an even width),
else 2 / (H W).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from imex_experiments.operators.kernels import cpp
from imex_experiments.operators.waves import (
    column_weights,
    dct,
    dst,
    half_sample_shifts,
    hartley,
)


@dataclass(frozen=True)
class Transform(ABC):
    """F and F^-1 for images of one size, and what is done to a spectrum between them."""

    size: tuple[int, int]

    @property
    def waves(self) -> tuple[int, int]:
        """The last two sides of a symbol."""
        return self.size

    def new_spectrum(self, x: Tensor) -> Tensor:
        """Room for F x."""
        return torch.empty_like(x, memory_format=torch.contiguous_format)

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """X = F x."""

    @abstractmethod
    def inverse(self, X: Tensor) -> Tensor:
        """x = F^-1 X. X may be overwritten."""

    def factors(self, symbol: Tensor) -> Tensor:
        """The symbol as `multiply` wants it, channels first."""
        return symbol

    def multiply(self, X: Tensor, t: Tensor) -> Tensor:
        """The spectrum of the stencil's product, t = factors(symbol)."""
        return X * t

    def overwrite(self, X: Tensor, t: Tensor) -> Tensor:
        """The same, X may be lost."""
        return X.mul_(t)

    def weights(self, like: Tensor) -> float | Tensor:
        """w of the inner product, for factors like these."""
        return 1.0

    def add_cross(self, total: Tensor, X: Tensor, G: Tensor) -> None:
        """total += d <G, multiply(X, t)> / d t but for w, summed over the batch."""
        for x, g in zip(X, G, strict=True):  # product and sum in one pass
            total.addcmul_(x, g)


class Periodic(Transform):
    """Symbols are given on half a spectrum, as `torch.fft.rfft2` lays it out."""

    @property
    def waves(self) -> tuple[int, int]:
        return self.size[0], self.size[1] // 2 + 1


class PeriodicFft(Periodic):
    """The real FFT, half a spectrum along the width."""

    def new_spectrum(self, x: Tensor) -> Tensor:
        return x.new_empty((*x.shape[:2], *self.waves), dtype=x.dtype.to_complex())

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.rfft2(x)

    def inverse(self, X: Tensor) -> Tensor:
        if X.is_cpu:  # one axis after the other: half the time of irfft2
            return torch.fft.irfft(torch.fft.ifft(X, dim=-2), n=self.size[1])
        return torch.fft.irfft2(X, s=self.size)

    def multiply(self, X: Tensor, t: Tensor) -> Tensor:
        return torch.view_as_complex(torch.view_as_real(X) * _doubled(t))

    def overwrite(self, X: Tensor, t: Tensor) -> Tensor:
        torch.view_as_real(X).mul_(_doubled(t))
        return X

    def add_cross(self, total: Tensor, X: Tensor, G: Tensor) -> None:
        for x, g in zip(X, G, strict=True):
            parts = torch.view_as_real(x) * torch.view_as_real(g)
            total.add_(parts[..., 0]).add_(parts[..., 1])

    def weights(self, like: Tensor) -> Tensor:
        return column_weights(self.size, like.dtype, like.device)


class PeriodicGemm(Periodic):
    """Hartley's matrix along the height, cosines and sines along the width.

    A = M x C^T and B = N x S^T, side by side: M = cas(2 pi j k / H) / sqrt(H), N = M with
    -k for k, both symmetric and their own inverse; C and S the orthonormal waves of the
    lower half of the width's wave numbers. Half of them is enough because x is real, and
    a stencil mixes cas(k1) cos(k2) with cas(-k1) sin(k2) alone:
    (p A + q B, p B + q A), p and q = (t(k1, k2) +- t(k1, -k2)) / 2.
    """

    @property
    def half(self) -> int:
        """K, the columns of A and of B."""
        return (self.size[1] + 1) // 2

    def matrices(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """M, N, and C over S, (2 K, W)."""
        return hartley(*self.size, like.dtype, like.device)

    def new_spectrum(self, x: Tensor) -> Tensor:
        return x.new_empty((*x.shape[:-1], 2 * self.half))

    def forward(self, x: Tensor) -> Tensor:
        M, N, CS = self.matrices(x)
        A, B = self._split(x @ CS.mT)
        return torch.cat([M @ A, N @ B], -1)

    def inverse(self, X: Tensor) -> Tensor:
        M, N, CS = self.matrices(X)
        A, B = self._split(X)
        return torch.cat([M @ A, N @ B], -1) @ CS

    def _split(self, X: Tensor) -> tuple[Tensor, ...]:
        """A and B of a spectrum."""
        return X.unflatten(-1, (2, self.half)).unbind(-2)

    def factors(self, symbol: Tensor) -> Tensor:
        """(C, 3, H, K): p of A, p of B, and q."""
        mirrored = _negate(symbol, -2)
        p, q = (symbol + mirrored) / 2, (symbol - mirrored) / 2
        # B's first column is the wave W / 2 (nothing for odd W), which has no partner.
        # Indices, because a slice of unknown width would tie a graph to W even or odd.
        columns = torch.arange(self.half, device=symbol.device)
        last = torch.where(columns == 0, self.size[1] // 2, columns)
        of_A, of_B, mixed = (
            part.index_select(-1, at)
            for part, at in ((p, columns), (p, last), (q, columns))
        )
        return torch.stack([of_A, of_B, mixed * (columns > 0)], 1)

    def multiply(self, X: Tensor, t: Tensor) -> Tensor:
        A, B = self._split(X)
        p, p_last, q = t.unbind(1)
        return torch.cat([p * A + q * B, p_last * B + q * A], -1)

    def overwrite(self, X: Tensor, t: Tensor) -> Tensor:
        return self.multiply(X, t)

    def add_cross(self, total: Tensor, X: Tensor, G: Tensor) -> None:
        (A, B), (A_g, B_g) = self._split(X), self._split(G)
        super().add_cross(total[:, 0], A, A_g)
        super().add_cross(total[:, 1], B, B_g)
        super().add_cross(total[:, 2], A, B_g)
        super().add_cross(total[:, 2], B, A_g)


class Fused(Periodic):
    """A transform whose whole product is one of the kernels (see `fused`)."""

    @abstractmethod
    def product(self, x: Tensor, t: Tensor) -> Tensor:
        """F^-1 (t F x), of the dtype of x."""


class PeriodicTriton(PeriodicGemm, Fused):
    """The kernels of `kernels.triton`, for CUDA devices."""

    def factors(self, symbol: Tensor) -> Tensor:
        """(C, 2, H, K): p, and q with p of the wave W / 2 in its empty first column."""
        p, last, q = super().factors(symbol).unbind(1)
        return torch.stack([p, torch.cat([last[..., :1], q[..., 1:]], -1)], 1)

    def gram_factors(self, taps: Tensor) -> Tensor:
        """Return the factors of (I + B^T B)^-1 for taps (C, kh, kw)."""
        from imex_experiments.operators.kernels import gram_triton  # needs triton

        return gram_triton.gram_factors(taps.float(), *self.size)

    def product(self, x: Tensor, t: Tensor) -> Tensor:
        from imex_experiments.operators.kernels import triton  # needs triton

        return triton.product(x, t)


class PeriodicCpp(PeriodicFft, Fused):
    """The kernels of `fused.cpp`, for CPUs."""

    def product(self, x: Tensor, t: Tensor) -> Tensor:
        return cpp.product(x.to(t.dtype), t).to(x.dtype)


class ClosedGemm(Transform):
    """An orthogonal real transform along each axis: A_H x A_W^T."""

    matrix: Callable[[int, torch.dtype, torch.device], Tensor]

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (type(self).matrix(n, x.dtype, x.device) for n in self.size)
        return rows @ (x @ columns.mT)

    def inverse(self, X: Tensor) -> Tensor:
        rows, columns = (type(self).matrix(n, X.dtype, X.device) for n in self.size)
        return rows.mT @ (X @ columns)


class NeumannGemm(ClosedGemm):
    """DCT-II: waves with even extension about the edges of the outermost pixels."""

    matrix = staticmethod(dct)


class DirichletGemm(ClosedGemm):
    """DST-I: waves that vanish one pixel outside of the image."""

    matrix = staticmethod(dst)


class NeumannFft(Transform):
    """DCT-II by a real FFT of the even extension of twice the length."""

    def forward(self, x: Tensor) -> Tensor:
        return self._along_width(self._along_width(x).mT).mT

    def inverse(self, X: Tensor) -> Tensor:
        return self._back_along_width(self._back_along_width(X).mT).mT

    @staticmethod
    def _along_width(x: Tensor) -> Tensor:
        n = x.shape[-1]
        shift, _ = half_sample_shifts(n, x.dtype, x.device)
        return (torch.fft.rfft(torch.cat([x, x.flip(-1)], -1))[..., :n] * shift).real

    @staticmethod
    def _back_along_width(X: Tensor) -> Tensor:
        n = X.shape[-1]
        _, shift = half_sample_shifts(n, X.dtype, X.device)
        return torch.fft.irfft(X * shift, n=2 * n)[..., :n]


class DirichletFft(Transform):
    """DST-I by a real FFT of the odd extension of length 2 (n + 1)."""

    def forward(self, x: Tensor) -> Tensor:
        return self._along_width(self._along_width(x).mT).mT

    def inverse(self, X: Tensor) -> Tensor:
        return self.forward(X)

    @staticmethod
    def _along_width(x: Tensor) -> Tensor:
        n = x.shape[-1]
        nothing = x.new_zeros(*x.shape[:-1], 1)
        extended = torch.cat([nothing, x, nothing, -x.flip(-1)], -1)
        return torch.fft.rfft(extended).imag[..., 1:-1] * -((2 * n + 2) ** -0.5)


def _doubled(t: Tensor) -> Tensor:
    """Factors for real and imaginary parts, side by side: complex times real does not
    vectorise, a product of reals does."""
    return torch.stack([t, t], -1)


def _negate(U: Tensor, *dims: int) -> Tensor:
    """U(-k) along the given axes of wave numbers modulo their length."""
    return U.flip(dims).roll([1] * len(dims), dims)
