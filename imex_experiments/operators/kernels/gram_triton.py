"""Make the factors of (I + B^T B)^-1 from the taps of B, in Triton kernels.

Shapes: taps b (C, kh, kw) float32; factors t (C, 2, H, K) as `kernels.triton` takes them;
RC, RS (kh, H) and CC, CS (kw, W // 2 + 1) are cosines and sines of k d along the height and
along the width. B^(k) = sum_d b_d exp(i k.d) is summed along the width first.

In plain operations the same takes forty launches on tensors of a channel's size, which
cost as much as the product itself.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from imex_experiments.operators.stencils import axis_phases, gram_symbol
from imex_experiments.operators.transforms import PeriodicTriton

TILE = {"BH": 16, "BW": 64}
"""Rows and columns of wave numbers that a program takes."""


@triton.jit
def _turned(C, S, d, at, stride, inside):
    """Return cos and sin of k d for some wave numbers k along an axis."""
    offset = d * stride + at
    return tl.load(C + offset, inside, 0), tl.load(S + offset, inside, 0)


@triton.jit
def _amplitudes(
    b, RC, RS, CC, CS, rows, columns, H, waves, kh: tl.constexpr, kw: tl.constexpr
):
    """Return real and imaginary part of B^ at (k1, k2), and those at (-k1, k2)."""
    shape: tl.constexpr = (rows.shape[0], columns.shape[0])
    re, im = tl.zeros(shape, tl.float32), tl.zeros(shape, tl.float32)
    re_m, im_m = tl.zeros(shape, tl.float32), tl.zeros(shape, tl.float32)
    for i in tl.static_range(kh):
        even = tl.zeros((columns.shape[0],), tl.float32)
        odd = tl.zeros((columns.shape[0],), tl.float32)
        for j in tl.static_range(kw):
            tap = tl.load(b + i * kw + j)
            cosine, sine = _turned(CC, CS, j, columns, waves, columns < waves)
            even += tap * cosine
            odd += tap * sine
        cosine, sine = _turned(RC, RS, i, rows, H, rows < H)
        cosine, sine = cosine[:, None], sine[:, None]
        even, odd = even[None, :], odd[None, :]
        re += cosine * even - sine * odd
        im += cosine * odd + sine * even
        re_m += cosine * even + sine * odd
        im_m += cosine * odd - sine * even
    return re, im, re_m, im_m


@triton.jit
def _gram_factors_kernel(
    b, RC, RS, CC, CS, t, H, W,
    kh: tl.constexpr, kw: tl.constexpr, BH: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """Write the factors of 1 / (1 + |B^|^2), some rows and columns of a channel."""
    channel, K, waves = tl.program_id(0), (W + 1) // 2, W // 2 + 1
    rows = tl.program_id(1) * BH + tl.arange(0, BH)
    columns = tl.program_id(2) * BW + tl.arange(0, BW)
    re, im, re_m, im_m = _amplitudes(
        b + channel * kh * kw, RC, RS, CC, CS, rows, columns, H, waves, kh, kw
    )
    here = 1 / (1 + re * re + im * im)
    mirrored = 1 / (1 + re_m * re_m + im_m * im_m)
    p, q = (here + mirrored) / 2, (here - mirrored) / 2
    at = t + channel * 2 * H * K + rows[:, None] * K + columns[None, :]
    inside = (rows[:, None] < H) & (columns[None, :] < K)
    tl.store(at, p, inside)
    tl.store(at + H * K, q, inside & (columns[None, :] > 0))
    # The wave W / 2 goes to the first column; of odd widths the wave 0 fills it.
    edge = columns[None, :] == tl.where(W % 2 == 0, W // 2, 0)
    to = t + (channel * 2 + 1) * H * K + rows[:, None] * K + 0 * columns[None, :]
    tl.store(to, p, (rows[:, None] < H) & edge)


@triton.jit
def _gram_gradients_kernel(
    b, g, RC, RS, CC, CS, grad_b, H, W,
    kh: tl.constexpr, kw: tl.constexpr, BH: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """Write the gradient of the taps from that of the factors, summed over a tile."""
    channel, K, waves = tl.program_id(0), (W + 1) // 2, W // 2 + 1
    rows = tl.program_id(1) * BH + tl.arange(0, BH)
    columns = tl.program_id(2) * BW + tl.arange(0, BW)
    re, im, re_m, im_m = _amplitudes(
        b + channel * kh * kw, RC, RS, CC, CS, rows, columns, H, waves, kh, kw
    )
    here = 1 / (1 + re * re + im * im)
    mirrored = 1 / (1 + re_m * re_m + im_m * im_m)
    g += channel * 2 * H * K
    row, at = rows[:, None] * K, rows[:, None] * K + columns[None, :]
    inside = (rows[:, None] < H) & (columns[None, :] < K)
    later = inside & (columns[None, :] > 0)
    edge = (rows[:, None] < H) & (columns[None, :] == tl.where(W % 2 == 0, W // 2, 0))
    of_p = tl.load(g + at, inside, 0) + tl.load(
        g + H * K + row + 0 * columns[None, :], edge, 0
    )
    of_q = tl.load(g + H * K + at, later, 0)
    # d t = -t^2 d |B^|^2, d |B^|^2 = 2 (re d re + im d im)
    u, u_m = -here * here * (of_p + of_q), -mirrored * mirrored * (of_p - of_q)
    even, odd = u * re + u_m * re_m, u * im + u_m * im_m
    even_m, odd_m = u * re - u_m * re_m, u * im - u_m * im_m
    parts = tl.num_programs(1) * tl.num_programs(2)
    part = tl.program_id(1) * tl.num_programs(2) + tl.program_id(2)
    grad_b += (channel * parts + part) * kh * kw
    for i in tl.static_range(kh):
        cosine, sine = _turned(RC, RS, i, rows, H, rows < H)
        cosine, sine = cosine[:, None], sine[:, None]
        along = tl.sum(cosine * even + sine * odd_m, 0)
        across = tl.sum(cosine * odd - sine * even_m, 0)
        for j in tl.static_range(kw):
            c, s = _turned(CC, CS, j, columns, waves, columns < waves)
            tl.store(grad_b + i * kw + j, tl.sum(along * c + across * s, 0))


@torch.library.custom_op("imex_experiments::triton_gram_factors", mutates_args=())
def gram_factors(b: Tensor, height: int, width: int) -> Tensor:
    """Return the factors of (I + B^T B)^-1 for taps b."""
    b = b.contiguous()
    t = b.new_empty((b.shape[0], 2, height, (width + 1) // 2))
    grid, words = _wave_tiles(b, height, width)
    phases = _phases_of(b, height, width)
    _gram_factors_kernel[grid](b, *phases, t, height, width, **words)
    return t


@torch.library.custom_op("imex_experiments::triton_gram_gradients", mutates_args=())
def gram_gradients(b: Tensor, g: Tensor, height: int, width: int) -> Tensor:
    """Return the gradient of <g, gram_factors(b)> in b."""
    b, g = b.contiguous(), g.contiguous()
    grid, words = _wave_tiles(b, height, width)
    grad_b = b.new_empty((b.shape[0], grid[1] * grid[2], *b.shape[1:]))
    phases = _phases_of(b, height, width)
    _gram_gradients_kernel[grid](b, g, *phases, grad_b, height, width, **words)
    return grad_b.sum(1)


def _wave_tiles(
    b: Tensor, height: int, width: int
) -> tuple[tuple[int, int, int], dict[str, int]]:
    """Return the grid of programs, and the constants of the two kernels."""
    channels, kh, kw = b.shape
    rows = triton.cdiv(height, TILE["BH"])
    columns = triton.cdiv(width // 2 + 1, TILE["BW"])
    return (channels, rows, columns), {"kh": kh, "kw": kw, **TILE}


def _phases_of(b: Tensor, height: int, width: int) -> tuple[Tensor, ...]:
    """Return cosines and sines of k d along the height, then along the width."""
    (_, kh, kw), like = b.shape, (b.dtype, b.device)
    rows = axis_phases(kh, height, height, *like)
    return *rows, *axis_phases(kw, width, width // 2 + 1, *like)


def _keep_taps(ctx: Any, inputs: tuple, output: Tensor) -> None:
    b, ctx.height, ctx.width = inputs
    ctx.save_for_backward(b)


def _gram_backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
    (b,) = ctx.saved_tensors
    if not torch.is_grad_enabled():
        return gram_gradients(b, g, ctx.height, ctx.width), None, None
    # For second derivatives the same formula in operations that torch derives.
    F = PeriodicTriton((ctx.height, ctx.width))
    t = F.factors((1 + gram_symbol(b, F.size)).reciprocal())
    return torch.autograd.grad(t, b, g, create_graph=True)[0], None, None


gram_factors.register_autograd(_gram_backward, setup_context=_keep_taps)
gram_factors.register_fake(
    lambda b, height, width: b.new_empty((b.shape[0], 2, height, (width + 1) // 2))
)
gram_gradients.register_fake(lambda b, g, height, width: torch.empty_like(b))
