"""The real waves that images are expanded in: constant matrices, exact to rounding."""

import torch
from torch import Tensor

from imex_experiments.operators.precision import angles, constant, made_on


def hartley(
    height: int, width: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Return M, N (H, H), and C over S (2 K, W) of `transforms.PeriodicGemm`."""
    M, N = (cas(height, sign, dtype, device) for sign in (1, -1))
    return M, N, cosines_and_sines(width, dtype, device)


@constant
def cas(n: int, sign: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Hartley's matrix, (cos + sign sin)(2 pi j k / n) / sqrt(n)."""
    j = torch.arange(n, device=made_on(device))
    angle = angles(j, j, n)
    return ((angle.cos() + sign * angle.sin()) / n**0.5).to(device, dtype)


@constant
def cosines_and_sines(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Orthonormal waves k < n / 2 as rows: cosines, then sines.

    The place of the sine of k = 0 takes the cosine of n / 2, or zeros where n is odd.
    """
    half = (n + 1) // 2
    on = made_on(device)
    k, j = torch.arange(half, device=on), torch.arange(n, device=on)
    angle = angles(k, j, n)
    cosines, sines = angle.cos(), angle.sin()
    cosines[0] /= 2**0.5
    even = n + 1 - 2 * half  # 1 or 0, and no branch: a compiled graph takes any n
    sines[0] = even * (1 - 2 * (j % 2)).double() / 2**0.5
    return (torch.cat([cosines, sines]) * (2 / n) ** 0.5).to(device, dtype)


@constant
def dct(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """DCT-II, orthonormal: rows cos(pi k (2 j + 1) / 2 n)."""
    k = torch.arange(n, device=made_on(device))
    matrix = angles(k, 2 * k + 1, 4 * n).cos() * (2 / n) ** 0.5
    matrix[0] /= 2**0.5
    return matrix.to(device, dtype)


@constant
def dst(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """DST-I, orthonormal and symmetric: sin(pi (k + 1) (j + 1) / (n + 1))."""
    k = torch.arange(1, n + 1, device=made_on(device))
    sines = angles(k, k, 2 * (n + 1)).sin()
    return (sines * (2 / (n + 1)) ** 0.5).to(device, dtype)


@constant
def half_sample_shifts(
    n: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """What moves the even extension by half a pixel and scales it, there and back."""
    k = torch.arange(n)
    back = torch.polar(
        torch.full((n,), (2 * n) ** 0.5, dtype=torch.float64),
        torch.pi * k.double() / (2 * n),
    )
    there = back.conj().resolve_conj() / (2 * n)
    back[0] *= 2**0.5
    there[0] /= 2**0.5
    kind = torch.promote_types(dtype, torch.complex32)
    return there.to(device, kind), back.to(device, kind)


@constant
def column_weights(
    size: tuple[int, int], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """w of the inner product of half spectra."""
    height, width = size
    weights = torch.full((width // 2 + 1,), 2 / (height * width), dtype=torch.float64)
    weights[0] /= 2
    if width % 2 == 0:
        weights[-1] /= 2
    return weights.to(device, dtype)
