"""Transforms F that diagonalise a stencil: one class per boundary and backend.

Shapes: images x (B, C, H, W); spectra X (B, C, ...) in the layout of each transform;
symbols (C, H, W // 2 + 1) for a periodic boundary, (C, H, W) for neumann and dirichlet;
transfer functions t (C, ...): a symbol in the layout that `multiply` takes.

Gradients of spectra refer to the inner product in which F^-1 is the adjoint of F:
<X, G> = sum_k w_k (Re X Re G + Im X Im G). For a real orthogonal transform w = 1. For half
a spectrum see `waves.column_weights`.
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
    hartley_transfer,
    packed_hartley_transfer,
)


@dataclass(frozen=True)
class Transform(ABC):
    """A transform F for images of one size, its inverse, and products of spectra."""

    size: tuple[int, int]

    @property
    def waves(self) -> tuple[int, int]:
        """Return the last two sides of a symbol."""
        return self.size

    def new_spectrum(self, x: Tensor) -> Tensor:
        """Return an uninitialised tensor in the shape and dtype of F x."""
        return torch.empty_like(x, memory_format=torch.contiguous_format)

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Return X = F x."""

    @abstractmethod
    def inverse(self, X: Tensor) -> Tensor:
        """Return x = F^-1 X. May overwrite X."""

    def lay_out(self, symbol: Tensor) -> Tensor:
        """Return the transfer function t: the symbol in the layout of `multiply`."""
        return symbol

    def multiply(self, X: Tensor, t: Tensor) -> Tensor:
        """Return the spectrum times the transfer function t = lay_out(symbol)."""
        return X * t

    def overwrite(self, X: Tensor, t: Tensor) -> Tensor:
        """Return the result of `multiply`. May overwrite X."""
        return X.mul_(t)

    def weights(self, like: Tensor) -> float | Tensor:
        """Return w of the inner product, in a shape that broadcasts to `like`."""
        return 1.0

    def add_cross(self, total: Tensor, X: Tensor, G: Tensor) -> None:
        """Add the gradient of <G, multiply(X, t)> in t to `total`, without its factor w.

        The gradient is summed over the batch.
        """
        for x, g in zip(X, G, strict=True):  # one pass for product and sum
            total.addcmul_(x, g)


class Periodic(Transform):
    """A transform for periodic boundaries, with symbols on the half spectrum of rfft2."""

    @property
    def waves(self) -> tuple[int, int]:
        return self.size[0], self.size[1] // 2 + 1


class PeriodicFft(Periodic):
    """The real FFT, with half a spectrum along the width."""

    def new_spectrum(self, x: Tensor) -> Tensor:
        return x.new_empty((*x.shape[:2], *self.waves), dtype=x.dtype.to_complex())

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.rfft2(x)

    def inverse(self, X: Tensor) -> Tensor:
        if X.is_cpu:  # one axis at a time takes half the time of irfft2
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
    """Matrix products: Hartley waves along the height, cosines and sines along the width.

    The spectrum is A = M x C^T and B = N x S^T, side by side. M = cas(2 pi j k / H) /
    sqrt(H) with cas = cos + sin, and N is M with -k in place of k. M and N are symmetric
    and their own inverses. C and S hold the orthonormal cosines and sines of the wave
    numbers k2 < W / 2.

    A stencil mixes cas(k1) cos(k2) only with cas(-k1) sin(k2). So t maps (A, B) to
    (p A + q B, p B + q A) with p, q = (t(k1, k2) +- t(k1, -k2)) / 2.
    """

    @property
    def half(self) -> int:
        """Return K = ceil(W / 2), the number of columns of A and of B."""
        return (self.size[1] + 1) // 2

    def matrices(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return M and N (H, H), and C stacked on S (2 K, W)."""
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
        """Return A and B of a spectrum."""
        return X.unflatten(-1, (2, self.half)).unbind(-2)

    def lay_out(self, symbol: Tensor) -> Tensor:
        """Return p for A, p for B, and q, stacked to (C, 3, H, K)."""
        return torch.stack(hartley_transfer(symbol, self.size[1]), 1)

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
    """A periodic transform with kernels for F^-1 (t F x) as a whole (backend `fused`)."""

    @abstractmethod
    def product(self, x: Tensor, t: Tensor) -> Tensor:
        """Return F^-1 (t F x) in the dtype of x."""


class PeriodicTriton(PeriodicGemm, Fused):
    """The transform of `PeriodicGemm` in Triton kernels, for CUDA devices."""

    def lay_out(self, symbol: Tensor) -> Tensor:
        return packed_hartley_transfer(symbol, self.size[1])

    def gram_transfer(self, taps: Tensor) -> Tensor:
        """Return the transfer function of (I + B^T B)^-1 for taps (C, kh, kw) of B."""
        from imex_experiments.operators.kernels import gram_triton  # needs triton

        return gram_triton.gram_transfer(taps.float(), *self.size)

    def product(self, x: Tensor, t: Tensor) -> Tensor:
        from imex_experiments.operators.kernels import triton  # needs triton

        return triton.product(x, t)


class PeriodicCpp(PeriodicFft, Fused):
    """The real FFT in the C++ kernels of `fused.cpp`, for CPUs."""

    def product(self, x: Tensor, t: Tensor) -> Tensor:
        return cpp.product(x.to(t.dtype), t).to(x.dtype)


class OrthogonalGemm(Transform):
    """A real orthogonal transform along each axis as matrix products, A_H x A_W^T."""

    matrix: Callable[[int, torch.dtype, torch.device], Tensor]

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (type(self).matrix(n, x.dtype, x.device) for n in self.size)
        return rows @ (x @ columns.mT)

    def inverse(self, X: Tensor) -> Tensor:
        rows, columns = (type(self).matrix(n, X.dtype, X.device) for n in self.size)
        return rows.mT @ (X @ columns)


class NeumannGemm(OrthogonalGemm):
    """The DCT-II: waves that extend evenly beyond the edges of the image."""

    matrix = staticmethod(dct)


class DirichletGemm(OrthogonalGemm):
    """The DST-I: waves that vanish one pixel outside the image."""

    matrix = staticmethod(dst)


class NeumannFft(Transform):
    """The DCT-II by a real FFT of the even extension, twice as long as the image."""

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
    """The DST-I by a real FFT of the odd extension, of length 2 (n + 1)."""

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
    """Return t twice, for the real and the imaginary part of a spectrum.

    A product of real tensors vectorises; a product of a complex and a real one does not.
    """
    return torch.stack([t, t], -1)
