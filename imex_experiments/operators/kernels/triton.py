"""Multiply spectra by factors in Triton kernels: the product of `fused` for CUDA devices.

The transform is that of `transforms.PeriodicGemm`.

Shapes: images x, y, g (B, C, H, W) bfloat16, float16 or float32; factors t (C, 2, H, K)
float32, K = ceil(W / 2): p, and q with p of the wave W / 2 in its first column, which has
no q; matrices M, N (H, H) and CS (2 K, W) as there.

Planes with sides of 32 and 64, of half precision with 64 and 128, take one pass: a program
has one channel and a chunk of the batch, holds matrices and factors, and reads and writes
each plane once. Larger ones, whose matrices do not fit beside each other into the memory of
a multiprocessor, take three: rows, columns with the symbol, rows.

The gradient of t needs the spectra of x and of g. That of x is made again in the pass that
makes that of g: what is kept is x itself, at its own width, where a spectrum would be
float32. Products of float32 images are three TF32
products. Half-precision ones are float16 in one pass, which has TF32's digits at twice the
speed: a plane is divided by its largest value before, and the factors by theirs, so that
nothing leaves float16's range. In three passes they are TF32. Sums are float32.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from imex_experiments.operators.kernels.autograd import make_differentiable
from imex_experiments.operators.kernels.available import in_one_pass
from imex_experiments.operators.waves import hartley

PROGRAMS, GRADIENT_PROGRAMS = 8, 2
"""Per multiprocessor: chunks of a batch are as long as leaves about so many. Gradients hold
sums besides, and fewer of their programs have room at one time."""

TILE = 64, 32, 32
"""Rows, columns and the sum's length of a product in three passes."""


@triton.jit
def _grid(rows: tl.constexpr, columns: tl.constexpr):
    return tl.arange(0, rows)[:, None] * columns + tl.arange(0, columns)[None, :]


@triton.jit
def _operand(x, precision: tl.constexpr):
    """Return x as the products take it."""
    if precision == "float16":
        x = x.to(tl.float16)
    return x


@triton.jit
def _dot(a, b, precision: tl.constexpr):
    """Return a @ b in float32."""
    if precision == "float16":
        product = tl.dot(a.to(tl.float16), b.to(tl.float16))
    else:
        product = tl.dot(a, b, input_precision=precision)
    return product


@triton.jit
def _top(x):
    """Return the largest |x|, at least 1e-30: its inverse has to be finite."""
    return tl.maximum(tl.max(tl.max(tl.abs(x), 1), 0), 1e-30)


@triton.jit
def _load_plane(x, precision: tl.constexpr):
    """Return a plane as an operand and its scale: divided by it for float16 products."""
    plane, scale = tl.load(x).to(tl.float32), 1.0
    if precision == "float16":
        scale = _top(plane)
        plane *= 1 / scale
    return _operand(plane, precision), scale


@triton.jit
def _matrices(M, N, CS, H: tl.constexpr, W: tl.constexpr, precision: tl.constexpr):
    """Return M, N, C and S as operands."""
    square, wide = _grid(H, H), _grid(W // 2, W)
    m = _operand(tl.load(M + square), precision)
    n = _operand(tl.load(N + square), precision)
    c = _operand(tl.load(CS + wide), precision)
    return m, n, c, _operand(tl.load(CS + W // 2 * W + wide), precision)


@triton.jit
def _factors(t, at, size, precision: tl.constexpr):
    """Return p and q as operands and their scale: divided by it for float16 products."""
    p, q, scale = tl.load(t + at), tl.load(t + size + at), 1.0
    if precision == "float16":
        scale = _top(tl.maximum(tl.abs(p), tl.abs(q)))
    return _operand(p / scale, precision), _operand(q / scale, precision), scale


@triton.jit
def _multiply(a, b, p, q, first, precision: tl.constexpr):
    """Return the spectrum times its factors; `first` is true on the first column."""
    a, b = _operand(a, precision), _operand(b, precision)
    mixed = tl.where(first, 0.0, q).to(q.dtype)
    return p * a + mixed * b, tl.where(first, q, p) * b + mixed * a


@triton.jit
def _cross(a, b, a_g, b_g, first):
    """Return the gradients of p and q of <g, product(x, t)>."""
    straight = tl.where(first, 0.0, b * b_g)
    return a * a_g + straight, tl.where(first, b * b_g, a * b_g + b * a_g)


@triton.jit
def _waves(x, m, n, c, s, precision: tl.constexpr):
    """Return A = M x C^T and B = N x S^T."""
    a = _dot(x, tl.trans(c), precision)
    b = _dot(x, tl.trans(s), precision)
    return _dot(m, a, precision), _dot(n, b, precision)


@triton.jit
def _plane(a, b, m, n, c, s, precision: tl.constexpr):
    """Return M A C + N B S."""
    a = _dot(m, a, precision)
    b = _dot(n, b, precision)
    return _dot(a, c, precision) + _dot(b, s, precision)


@triton.jit
def _product_kernel(
    x,
    t,
    y,
    M,
    N,
    CS,
    batch,
    channels,
    chunk,
    H: tl.constexpr,
    W: tl.constexpr,
    precision: tl.constexpr,
):
    """y = F^-1 (t F x)."""
    channel, start = tl.program_id(0), tl.program_id(1) * chunk
    pixels, waves = _grid(H, W), _grid(H, W // 2)
    size: tl.constexpr = H * (W // 2)
    first = tl.arange(0, W // 2)[None, :] == 0
    p, q, t_scale = _factors(t + channel * 2 * size, waves, size, precision)
    m, n, c, s = _matrices(M, N, CS, H, W, precision)
    for image in range(start, min(start + chunk, batch)):
        plane = (image * channels + channel).to(tl.int64) * (H * W) + pixels
        values, scale = _load_plane(x + plane, precision)
        a, b = _waves(values, m, n, c, s, precision)
        a, b = _multiply(a, b, p, q, first, precision)
        out = _plane(a, b, m, n, c, s, precision) * (scale * t_scale)
        tl.store(y + plane, out.to(y.dtype.element_ty))


@triton.jit
def _gradients_kernel(
    g,
    x,
    t,
    grad_x,
    grad_t,
    M,
    N,
    CS,
    batch,
    channels,
    chunk,
    H: tl.constexpr,
    W: tl.constexpr,
    precision: tl.constexpr,
):
    """grad_x = F^-1 (t F g), and the cross spectrum of x and g, summed over a chunk."""
    channel, start = tl.program_id(0), tl.program_id(1) * chunk
    pixels, waves = _grid(H, W), _grid(H, W // 2)
    size: tl.constexpr = H * (W // 2)
    first = tl.arange(0, W // 2)[None, :] == 0
    p, q, t_scale = _factors(t + channel * 2 * size, waves, size, precision)
    m, n, c, s = _matrices(M, N, CS, H, W, precision)
    d_p = tl.zeros((H, W // 2), tl.float32)
    d_q = tl.zeros((H, W // 2), tl.float32)
    for image in range(start, min(start + chunk, batch)):
        plane = (image * channels + channel).to(tl.int64) * (H * W) + pixels
        values, scale = _load_plane(x + plane, precision)
        a, b = _waves(values, m, n, c, s, precision)
        a, b = _operand(a, precision), _operand(b, precision)  # half the registers
        values, g_scale = _load_plane(g + plane, precision)
        a_g, b_g = _waves(values, m, n, c, s, precision)
        of_p, of_q = _cross(a, b, a_g, b_g, first)
        d_p += (scale * g_scale) * of_p
        d_q += (scale * g_scale) * of_q
        a, b = _multiply(a_g, b_g, p, q, first, precision)
        out = _plane(a, b, m, n, c, s, precision) * (g_scale * t_scale)
        tl.store(grad_x + plane, out.to(grad_x.dtype.element_ty))
    grad_t += (tl.program_id(1) * channels + channel) * 2 * size
    tl.store(grad_t + waves, d_p)
    tl.store(grad_t + size + waves, d_q)


@triton.jit
def _tile(at, rows, columns, height, width, row_stride, column_stride):
    """Part of a matrix, zero outside of it."""
    inside = (rows[:, None] < height) & (columns[None, :] < width)
    offsets = rows[:, None] * row_stride + columns[None, :] * column_stride
    return tl.load(at + offsets, inside, 0).to(tl.float32)


@triton.jit
def _rows_kernel(
    x,
    matrix,
    y,
    height,
    length,
    width,
    stride,
    step,
    BH: tl.constexpr,
    BW: tl.constexpr,
    BL: tl.constexpr,
    precision: tl.constexpr,
):
    """y = x @ matrix; x (height, length)."""
    rows = tl.program_id(0).to(tl.int64) * BH + tl.arange(0, BH)
    columns = tl.program_id(1) * BW + tl.arange(0, BW)
    total = tl.zeros((BH, BW), tl.float32)
    for start in range(0, length, BL):
        along = start + tl.arange(0, BL)
        left = _tile(x, rows, along, height, length, length, 1)
        right = _tile(matrix, along, columns, length, width, stride, step)
        total = tl.dot(left, right, total, input_precision=precision)
    at = rows[:, None] * width + columns[None, :]
    inside = (rows[:, None] < height) & (columns[None, :] < width)
    tl.store(y + at, total.to(y.dtype.element_ty), inside)


@triton.jit
def _columns_product(
    M, N, z, rows, columns, H, K, BL: tl.constexpr, precision: tl.constexpr
):
    """Some rows and columns of M A and N B, z = A and B side by side."""
    a = tl.zeros((rows.shape[0], columns.shape[0]), tl.float32)
    b = tl.zeros((rows.shape[0], columns.shape[0]), tl.float32)
    for start in range(0, H, BL):
        along = start + tl.arange(0, BL)
        m, n = _tile(M, rows, along, H, H, H, 1), _tile(N, rows, along, H, H, H, 1)
        left = _tile(z, along, columns, H, K, 2 * K, 1)
        right = _tile(z + K, along, columns, H, K, 2 * K, 1)
        a = tl.dot(m, left, a, input_precision=precision)
        b = tl.dot(n, right, b, input_precision=precision)
    return a, b


@triton.jit
def _columns_kernel(
    z,
    t,
    z_x,
    grad_t,
    V,
    M,
    N,
    batch,
    channels,
    chunk,
    H,
    K,
    BH: tl.constexpr,
    BK: tl.constexpr,
    BL: tl.constexpr,
    precision: tl.constexpr,
):
    """z <- columns of F^-1 t F along the height, with the symbol; V is room for a spectrum.

    Unless z_x is None, the cross spectrum with it is added to the chunk's part of grad_t.
    """
    channel, start = tl.program_id(0), tl.program_id(2) * chunk
    columns = tl.program_id(1) * BK + tl.arange(0, BK)
    size, first = H * K, columns[None, :] == 0
    t += channel * 2 * size
    for image in range(start, min(start + chunk, batch)):
        plane = (image * channels + channel).to(tl.int64) * (2 * size)
        for top in range(0, H, BH):
            rows = top + tl.arange(0, BH)
            inside = (rows[:, None] < H) & (columns[None, :] < K)
            at = rows[:, None] * K + columns[None, :]
            out = plane + rows[:, None] * (2 * K) + columns[None, :]
            a, b = _columns_product(M, N, z + plane, rows, columns, H, K, BL, precision)
            p, q = tl.load(t + at, inside, 0), tl.load(t + size + at, inside, 0)
            to_a, to_b = _multiply(a, b, p, q, first, precision)
            tl.store(V + out, to_a, inside)
            tl.store(V + out + K, to_b, inside)
            if z_x is not None:
                a_x, b_x = _columns_product(
                    M, N, z_x + plane, rows, columns, H, K, BL, precision
                )
                of_p, of_q = _cross(a, b, a_x, b_x, first)
                d = grad_t + (tl.program_id(2) * channels + channel) * 2 * size + at
                tl.store(d, tl.load(d, inside, 0) + of_p, inside)
                tl.store(d + size, tl.load(d + size, inside, 0) + of_q, inside)
        tl.debug_barrier()  # all of V's rows, by all threads
        for top in range(0, H, BH):
            rows = top + tl.arange(0, BH)
            inside = (rows[:, None] < H) & (columns[None, :] < K)
            out = plane + rows[:, None] * (2 * K) + columns[None, :]
            a, b = _columns_product(M, N, V + plane, rows, columns, H, K, BL, precision)
            tl.store(z + out, a, inside)
            tl.store(z + out + K, b, inside)


@torch.library.custom_op("imex_experiments::triton_product", mutates_args=())
def product(x: Tensor, t: Tensor) -> Tensor:
    """Return F^-1 (t F x)."""
    x, t = x.contiguous(), t.contiguous()
    M, N, CS = _matrices_of(x)
    if not in_one_pass(x.shape[-2:], x.dtype):
        z = _rows(x, CS.mT, torch.float32, x)
        _columns(z, t, M, N, x)
        return _rows(z, CS, x.dtype, x)
    y = torch.empty_like(x)
    grid, sizes = _programs(x, PROGRAMS)
    _product_kernel[grid](x, t, y, M, N, CS, *sizes, **_options(x), num_stages=2)
    return y


@torch.library.custom_op("imex_experiments::triton_gradients", mutates_args=())
def gradients(g: Tensor, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of x, F^-1 (t F g), and of t, the cross spectrum of x and g."""
    g, x, t = g.contiguous(), x.contiguous(), t.contiguous()
    M, N, CS = _matrices_of(x)
    if not in_one_pass(x.shape[-2:], x.dtype):
        z, z_x = (_rows(image, CS.mT, torch.float32, x) for image in (g, x))
        grad_t = _columns(z, t, M, N, x, z_x)
        return _rows(z, CS, x.dtype, x), grad_t
    grad_x = torch.empty_like(x)
    grid, sizes = _programs(x, GRADIENT_PROGRAMS)
    grad_t = t.new_empty((grid[1], *t.shape))
    _gradients_kernel[grid](
        g, x, t, grad_x, grad_t, M, N, CS, *sizes, **_options(x), num_stages=1
    )
    return grad_x, grad_t.sum(0)


make_differentiable(product, gradients)


def _matrices_of(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return hartley(x.shape[-2], x.shape[-1], torch.float32, x.device)


def _precision(x: Tensor) -> str:
    if x.dtype == torch.float32:
        return "tf32x3"
    return "float16" if in_one_pass(x.shape[-2:], x.dtype) else "tf32"


def _programs(
    x: Tensor, wanted: int, per_channel: int = 1
) -> tuple[tuple[int, int], tuple[int, int, int]]:
    """Channels and chunks of the batch, and what tells a program its images."""
    batch, channels = x.shape[:2]
    if x.is_cuda:
        wanted *= torch.cuda.get_device_properties(x.device).multi_processor_count
    chunk = triton.cdiv(batch, max(1, wanted // (channels * per_channel)))
    return (channels, triton.cdiv(batch, max(1, chunk))), (batch, channels, chunk)


def _options(x: Tensor) -> dict[str, Any]:
    """A warp for 16 rows: more would repeat each other's products."""
    height, width = x.shape[2:]
    shape = {"H": height, "W": width, "precision": _precision(x)}
    return {**shape, "num_warps": height // 16}


def _rows(x: Tensor, matrix: Tensor, dtype: torch.dtype, like: Tensor) -> Tensor:
    """x @ matrix: the first and the last pass, as precise as `like` asks for."""
    length, width = matrix.shape
    height = x.numel() // length
    y = x.new_empty((*x.shape[:-1], width), dtype=dtype)
    tile = dict(zip(("BH", "BW", "BL"), TILE, strict=True))
    grid = triton.cdiv(height, tile["BH"]), triton.cdiv(width, tile["BW"])
    _rows_kernel[grid](
        x, matrix, y, height, length, width, *matrix.stride(),
        **tile, precision=_precision(like),
    )  # fmt: skip
    return y


def _columns(
    z: Tensor,
    t: Tensor,
    M: Tensor,
    N: Tensor,
    like: Tensor,
    z_x: Tensor | None = None,
) -> Tensor:
    """The second pass, z in place; the cross spectrum with z_x if that is given."""
    height, half = z.shape[-2], z.shape[-1] // 2
    tile = dict(zip(("BH", "BK", "BL"), TILE, strict=True))
    blocks = triton.cdiv(half, tile["BK"])
    (channels, chunks), sizes = _programs(z, PROGRAMS, blocks)
    grad_t = t.new_zeros((chunks if z_x is not None else 0, *t.shape))
    _columns_kernel[channels, blocks, chunks](
        z, t, z_x, grad_t, torch.empty_like(z), M, N, *sizes, height, half,
        **tile, precision=_precision(like), num_stages=1,
    )  # fmt: skip
    return grad_t.sum(0)
