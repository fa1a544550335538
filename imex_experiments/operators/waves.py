"""Matrices and weights of the real transforms: constants, exact to rounding.

Shapes: a matrix maps n pixels along an axis to its waves, one wave a row: (waves, n).
"""

import torch
from torch import Tensor

from imex_experiments.operators.precision import angles, build_device, constant


def hartley(
    height: int, width: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Return M and N (H, H), and C stacked on S (2 K, W), of `transforms.PeriodicGemm`."""
    M, N = (cas(height, sign, dtype, device) for sign in (1, -1))
    return M, N, cosines_and_sines(width, dtype, device)


def hartley_transfer(symbol: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return p for A, p for B, and q of `transforms.PeriodicGemm`, each (C, H, K).

    The symbol is (C, H, W // 2 + 1). p and q are (t(k1, k2) +- t(-k1, k2)) / 2.
    """
    mirrored = symbol.flip(-2).roll(1, -2)
    p, q = (symbol + mirrored) / 2, (symbol - mirrored) / 2
    # B's first column is the wave W / 2 (zero for odd W), which mixes with no other.
    # An index, not a slice: a slice would fix the parity of W in a compiled graph.
    columns = torch.arange((width + 1) // 2, device=symbol.device)
    last = torch.where(columns == 0, width // 2, columns)
    for_A, for_B, mixed = (
        part.index_select(-1, at)
        for part, at in ((p, columns), (p, last), (q, columns))
    )
    return for_A, for_B, mixed * (columns > 0)


def packed_hartley_transfer(symbol: Tensor, width: int) -> Tensor:
    """Return p and q stacked to (C, 2, H, K), the layout of the Triton kernels.

    The first column of q would be zero. It holds p of the wave W / 2, B's first column.
    """
    p, last, q = hartley_transfer(symbol, width)
    return torch.stack([p, torch.cat([last[..., :1], q[..., 1:]], -1)], 1)


@constant
def cas(n: int, sign: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return Hartley's matrix, (cos + sign sin)(2 pi j k / n) / sqrt(n), (n, n)."""
    j = torch.arange(n, device=build_device(device))
    angle = angles(j, j, n)
    return ((angle.cos() + sign * angle.sin()) / n**0.5).to(device, dtype)


@constant
def cosines_and_sines(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the orthonormal waves k < n / 2 as rows: cosines, then sines.

    The sine of k = 0 vanishes. Its row holds the cosine of k = n / 2, or zeros for odd n.
    """
    half = (n + 1) // 2
    on = build_device(device)
    k, j = torch.arange(half, device=on), torch.arange(n, device=on)
    angle = angles(k, j, n)
    cosines, sines = angle.cos(), angle.sin()
    cosines[0] /= 2**0.5
    even = n + 1 - 2 * half  # 1 or 0; a branch would fix the parity of n in a graph
    sines[0] = even * (1 - 2 * (j % 2)).double() / 2**0.5
    return (torch.cat([cosines, sines]) * (2 / n) ** 0.5).to(device, dtype)


@constant
def dct(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the orthonormal DCT-II, rows cos(pi k (2 j + 1) / (2 n)), (n, n)."""
    k = torch.arange(n, device=build_device(device))
    matrix = angles(k, 2 * k + 1, 4 * n).cos() * (2 / n) ** 0.5
    matrix[0] /= 2**0.5
    return matrix.to(device, dtype)


@constant
def dst(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the orthonormal DST-I, sin(pi (k + 1) (j + 1) / (n + 1)), (n, n)."""
    k = torch.arange(1, n + 1, device=build_device(device))
    sines = angles(k, k, 2 * (n + 1)).sin()
    return (sines * (2 / (n + 1)) ** 0.5).to(device, dtype)


@constant
def half_sample_shifts(
    n: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the factors, each (n,) complex, that turn an FFT into a DCT-II and back.

    The DCT-II of n pixels is the FFT of their even extension (2 n values), with its origin
    moved by half a pixel. The shift multiplies wave k by exp(-i pi k / (2 n)). The factors
    also hold the scale that makes the transform orthonormal.
    """
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
    """Return the weights w (W // 2 + 1,) of the inner product of half spectra.

    A column with a mirror image in the other half counts twice: w = 2 / (H W). The first
    column, and the last of an even width, are their own mirror images: w = 1 / (H W).
    """
    height, width = size
    weights = torch.full((width // 2 + 1,), 2 / (height * width), dtype=torch.float64)
    weights[0] /= 2
    if width % 2 == 0:
        weights[-1] /= 2
    return weights.to(device, dtype)
