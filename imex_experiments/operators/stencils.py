"""Stencils and their real symbols.

Shapes: taps (C, kh, kw), kh and kw odd; symbols (C, H, W // 2 + 1), the half spectrum
of `torch.fft.rfft2`, wave numbers k = (2 pi i / H, 2 pi j / W).
"""

from contextlib import nullcontext
from functools import lru_cache

import torch
from torch import Tensor

LAPLACIAN = (
    (-1 / 6, -4 / 6, -1 / 6),
    (-4 / 6, 20 / 6, -4 / 6),
    (-1 / 6, -4 / 6, -1 / 6),
)
"""Nine-point stencil of the negative Laplacian, unit mesh size (IMEXnet eq. 7)."""


def laplacian(kernel_size: int = 3) -> Tensor:
    """Eq. 7 as taps (kernel_size, kernel_size), padded with zeros around the 3 x 3."""
    margin = (require_odd(kernel_size, at_least=3) - 3) // 2
    return torch.nn.functional.pad(torch.tensor(LAPLACIAN), [margin] * 4)


def require_odd(kernel_size: int, at_least: int = 1) -> int:
    """The size itself; ValueError for an even one, which has no centre."""
    if kernel_size < at_least or kernel_size % 2 == 0:
        raise ValueError(
            f"kernel_size must be odd and >= {at_least}, got {kernel_size}"
        )
    return kernel_size


def zero_mean(taps: Tensor) -> Tensor:
    """Taps with their mean taken off, so that the stencil annihilates constants."""
    return taps - taps.mean(dim=(-2, -1), keepdim=True)


@lru_cache(maxsize=64)
def _phases(
    kernel: tuple[int, int],
    size: tuple[int, int],
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """cos(k.d) and sin(k.d), each (kh kw, H (W // 2 + 1)), d counted from the centre.

    k.d is reduced modulo one turn in integers, so the angles are exact to rounding.
    """
    (kh, kw), (height, width) = kernel, size
    rows = torch.outer(torch.arange(kh) - kh // 2, torch.arange(height)) % height
    columns = (
        torch.outer(torch.arange(kw) - kw // 2, torch.arange(width // 2 + 1)) % width
    )
    turns = (rows.double() / height)[:, None, :, None] + (columns.double() / width)[
        None, :, None, :
    ]
    angle = (2 * torch.pi * turns).reshape(kh * kw, -1)
    return angle.cos().to(device, dtype), angle.sin().to(device, dtype)


def _check(taps: Tensor, size: tuple[int, int]) -> None:
    if taps.ndim != 3 or not taps.is_floating_point():
        raise ValueError(
            f"taps must be floating point (C, kh, kw), got {taps.dtype} {tuple(taps.shape)}"
        )
    for kernel, side in zip(taps.shape[1:], size, strict=True):
        require_odd(kernel)
        if side < kernel:
            raise ValueError(
                f"image of size {tuple(size)} is smaller than "
                f"the stencil {tuple(taps.shape[1:])}"
            )


def _sum_over_taps(taps: Tensor, phases: Tensor, size: tuple[int, int]) -> Tensor:
    """sum_d b_d phase(k.d), (C, H, W // 2 + 1); never in half precision."""
    device = taps.device.type
    autocast = torch.amp.is_autocast_available(device)  # the meta device has none
    with torch.autocast(device, enabled=False) if autocast else nullcontext():
        return (taps.flatten(1) @ phases).unflatten(1, (size[0], -1))


def even_symbol(taps: Tensor, size: tuple[int, int]) -> Tensor:
    """Symbol of a point-symmetric stencil: lambda(k) = sum_d b_d cos(k.d), real."""
    _check(taps, size)
    cosines, _ = _phases((taps.shape[1], taps.shape[2]), size, taps.dtype, taps.device)
    return _sum_over_taps(taps, cosines, size)


def gram_symbol(taps: Tensor, size: tuple[int, int]) -> Tensor:
    """Symbol of B^T B: lambda(k) = |B^(k)|^2 = (b.C)^2 + (b.S)^2 >= 0, real and even.

    Two real (C x kh kw)(kh kw x H W / 2) products; no padded kernel, no FFT, and the
    kernel's centring cancels in the modulus.
    """
    _check(taps, size)
    cosines, sines = _phases(
        (taps.shape[1], taps.shape[2]), size, taps.dtype, taps.device
    )
    real, imaginary = (
        _sum_over_taps(taps, phases, size) for phases in (cosines, sines)
    )
    return real.square() + imaginary.square()
