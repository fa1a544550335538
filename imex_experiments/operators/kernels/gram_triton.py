"""Compute the transfer function of (I + B^T B)^-1 from the taps of B, in Triton kernels.

The transfer function is 1 / (1 + |B^|^2) with B^(k) = sum_d b_d exp(i k.d). The sum runs
over the width first, then over the height.

Shapes: taps b (C, kh, kw) float32; t (C, 2, H, K) in the layout of `kernels.triton`;
RC, RS (kh, H) and CC, CS (kw, W // 2 + 1): cosines and sines of k d along the height (R)
and along the width (C).

Torch's operations would need forty kernel launches on tensors of one channel's size. They
would take as long as the product with t.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from imex_experiments.operators.stencils import axis_phases, gram_symbol
from imex_experiments.operators.waves import packed_hartley_transfer

TILE = {"BH": 16, "BW": 64}
"""Rows and columns of wave numbers that one program computes."""


@triton.jit
def _phase(C, S, d, at, stride, inside):
    """Return cos and sin of k d for the wave numbers `at` along an axis."""
    offset = d * stride + at
    return tl.load(C + offset, inside, 0), tl.load(S + offset, inside, 0)


@triton.jit
def _amplitudes(
    b, RC, RS, CC, CS, rows, columns, H, waves, kh: tl.constexpr, kw: tl.constexpr
):
    """Return Re and Im of B^ at (k1, k2), then Re and Im of B^ at (-k1, k2)."""
    shape: tl.constexpr = (rows.shape[0], columns.shape[0])
    re, im = tl.zeros(shape, tl.float32), tl.zeros(shape, tl.float32)
    re_m, im_m = tl.zeros(shape, tl.float32), tl.zeros(shape, tl.float32)
    for i in tl.static_range(kh):
        even = tl.zeros((columns.shape[0],), tl.float32)
        odd = tl.zeros((columns.shape[0],), tl.float32)
        for j in tl.static_range(kw):
            tap = tl.load(b + i * kw + j)
            cosine, sine = _phase(CC, CS, j, columns, waves, columns < waves)
            even += tap * cosine
            odd += tap * sine
        cosine, sine = _phase(RC, RS, i, rows, H, rows < H)
        cosine, sine = cosine[:, None], sine[:, None]
        even, odd = even[None, :], odd[None, :]
        re += cosine * even - sine * odd
        im += cosine * odd + sine * even
        re_m += cosine * even + sine * odd
        im_m += cosine * odd - sine * even
    return re, im, re_m, im_m


@triton.jit
def _gram_transfer_kernel(
    b, RC, RS, CC, CS, t, H, W,
    kh: tl.constexpr, kw: tl.constexpr, BH: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """Write t = 1 / (1 + |B^|^2) for one tile of wave numbers of a channel."""
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
    # The first column of q holds the wave W / 2; for odd widths, any value: the wave 0.
    edge = columns[None, :] == tl.where(W % 2 == 0, W // 2, 0)
    to = t + (channel * 2 + 1) * H * K + rows[:, None] * K + 0 * columns[None, :]
    tl.store(to, p, (rows[:, None] < H) & edge)


@triton.jit
def _gram_gradients_kernel(
    b, g, RC, RS, CC, CS, grad_b, H, W,
    kh: tl.constexpr, kw: tl.constexpr, BH: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """Write the gradient of the taps, given the gradient of t, summed over one tile."""
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
        cosine, sine = _phase(RC, RS, i, rows, H, rows < H)
        cosine, sine = cosine[:, None], sine[:, None]
        along = tl.sum(cosine * even + sine * odd_m, 0)
        across = tl.sum(cosine * odd - sine * even_m, 0)
        for j in tl.static_range(kw):
            c, s = _phase(CC, CS, j, columns, waves, columns < waves)
            tl.store(grad_b + i * kw + j, tl.sum(along * c + across * s, 0))


@torch.library.custom_op("imex_experiments::triton_gram_transfer", mutates_args=())
def gram_transfer(b: Tensor, height: int, width: int) -> Tensor:
    """Return the transfer function t (C, 2, H, K) of (I + B^T B)^-1 for taps b."""
    b = b.contiguous()
    t = b.new_empty((b.shape[0], 2, height, (width + 1) // 2))
    grid, constants = _wave_tiles(b, height, width)
    phases = _phases_of(b, height, width)
    _gram_transfer_kernel[grid](b, *phases, t, height, width, **constants)
    return t


@torch.library.custom_op("imex_experiments::triton_gram_gradients", mutates_args=())
def gram_gradients(b: Tensor, g: Tensor, height: int, width: int) -> Tensor:
    """Return the gradient of <g, gram_transfer(b)> in b."""
    b, g = b.contiguous(), g.contiguous()
    grid, constants = _wave_tiles(b, height, width)
    grad_b = b.new_empty((b.shape[0], grid[1] * grid[2], *b.shape[1:]))
    phases = _phases_of(b, height, width)
    _gram_gradients_kernel[grid](b, g, *phases, grad_b, height, width, **constants)
    return grad_b.sum(1)


def _wave_tiles(
    b: Tensor, height: int, width: int
) -> tuple[tuple[int, int, int], dict[str, int]]:
    """Return the grid of programs and the compile-time constants of both kernels."""
    channels, kh, kw = b.shape
    rows = triton.cdiv(height, TILE["BH"])
    columns = triton.cdiv(width // 2 + 1, TILE["BW"])
    return (channels, rows, columns), {"kh": kh, "kw": kw, **TILE}


def _phases_of(b: Tensor, height: int, width: int) -> tuple[Tensor, ...]:
    """Return RC, RS, CC and CS."""
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
    # Second derivatives: the same formula in operations that torch differentiates.
    symbol = (1 + gram_symbol(b, (ctx.height, ctx.width))).reciprocal()
    t = packed_hartley_transfer(symbol, ctx.width)
    return torch.autograd.grad(t, b, g, create_graph=True)[0], None, None


gram_transfer.register_autograd(_gram_backward, setup_context=_keep_taps)
gram_transfer.register_fake(
    lambda b, height, width: b.new_empty((b.shape[0], 2, height, (width + 1) // 2))
)
gram_gradients.register_fake(lambda b, g, height, width: torch.empty_like(b))
