"""Boundaries: one name gives the padding of explicit steps and the transform of implicit ones.

Shapes: images (B, C, H, W); spectra (B, C, H, W // 2 + 1), complex.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from imex_experiments.operators.stencils import require_odd

PADDING_MODES = {"periodic": "circular", "zeros": "constant"}
"""Padding of explicit convolutions -> mode of `torch.nn.functional.pad`."""

BOUNDARIES = ("periodic",)
"""Boundaries whose transform diagonalises the implicit operator."""


def require_boundary(name: str) -> str:
    """The name itself; ValueError with the choices for an unknown one."""
    if name not in BOUNDARIES:
        raise ValueError(
            f"boundary must be one of {', '.join(BOUNDARIES)}, got {name!r}"
        )
    return name


def require_padding(name: str) -> str:
    """The name itself; ValueError with the choices for an unknown one."""
    if name not in PADDING_MODES:
        raise ValueError(
            f"padding must be one of {', '.join(PADDING_MODES)}, got {name!r}"
        )
    return name


def convolve(y: Tensor, kernel: Tensor, padding: str) -> Tensor:
    """K y at the size of y; kernel (C_out, C_in, k, k), k odd."""
    margin = require_odd(kernel.shape[-1]) // 2
    if min(y.shape[-2:]) < kernel.shape[-1]:
        raise ValueError(
            f"image of size {tuple(y.shape[-2:])} is smaller than the kernel "
            f"{tuple(kernel.shape[-2:])}"
        )
    if padding == "zeros":
        return F.conv2d(y, kernel, padding=margin)
    return F.conv2d(F.pad(y, [margin] * 4, mode=PADDING_MODES[padding]), kernel)


def convolve_adjoint(y: Tensor, kernel: Tensor, padding: str) -> Tensor:
    """K^T y, the adjoint of `convolve` in the Euclidean product.

    For zero and periodic padding it is the convolution with the point-reflected kernel,
    input and output channels exchanged.
    """
    return convolve(y, kernel.transpose(0, 1).flip(-2, -1), padding)


def spectrum(x: Tensor) -> Tensor:
    """x^ = F x, the half spectrum of a real image."""
    return torch.fft.rfft2(x)


def from_spectrum(x_hat: Tensor, size: tuple[int, int]) -> Tensor:
    """F^-1 x^, the real image of the given size."""
    return torch.fft.irfft2(x_hat, s=size)


def spectral_weights(size: tuple[int, int], like: Tensor) -> Tensor:
    """w / (H W): how often each column of the half spectrum counts in an inner product.

    <x, y> = sum_k w_k Re(conj(x^) y^) / (H W), w = 1 on the self-conjugate columns
    (the first, and the last of an even width), else 2.
    """
    height, width = size
    weights = like.new_full((width // 2 + 1,), 2 / (height * width))
    weights[0] /= 2
    if width % 2 == 0:
        weights[-1] /= 2
    return weights
