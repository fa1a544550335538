"""The product F^-1 (t F x) and its gradients in Triton kernels, for CUDA devices.

The transform F is that of `transforms.PeriodicGemm`. Its docstring defines M, N, C, S and
the parts A, B of a spectrum. A program is Triton's block of threads.

Shapes: images x, y, g (B, C, H, W) bfloat16, float16 or float32; transfer functions t
(C, 2, H, K) float32, K = ceil(W / 2): p, then q; the first column of q holds p of the wave
W / 2; matrices M, N (H, H) and CS (2 K, W), C stacked on S.

One pass: planes with sides of 32 and 64, or 64 and 128 in half precision. A program keeps
the matrices and t of one channel on the multiprocessor. It reads and writes each plane of
its chunk of the batch once.
Three passes: all other planes, whose matrices do not fit into shared memory together. The
passes transform the rows, transform and multiply the columns, and transform the rows back.

Memory: the gradient of t needs the spectra of x and of g. Only x is kept for the backward
pass, which computes both spectra anew: x may be half precision, its spectrum is float32.

Precision: sums are float32. Float32 images take three TF32 products for one. In one pass,
half-precision images take float16 products, which have the digits of TF32 at twice the
speed; a plane and t are scaled by their largest values first, so that nothing overflows.
In three passes they take TF32 products.
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
"""Programs per multiprocessor that a batch is divided into. The gradients' kernel also
holds sums, so that fewer of its programs fit at a time."""

TILE = 64, 32, 32
"""Rows, columns and inner length of a tile of a matrix product, in three passes."""


@triton.jit
def _grid(rows: tl.constexpr, columns: tl.constexpr):
    """Return the offsets of the entries of a contiguous matrix."""
    return tl.arange(0, rows)[:, None] * columns + tl.arange(0, columns)[None, :]


@triton.jit
def _operand(x, precision: tl.constexpr):
    """Return x in the dtype that the products take."""
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
    """Return the largest |x|, at least 1e-30 so that its inverse is finite."""
    return tl.maximum(tl.max(tl.max(tl.abs(x), 1), 0), 1e-30)


@triton.jit
def _load_plane(x, precision: tl.constexpr):
    """Return a plane as an operand, and the scale that it was divided by."""
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
def _load_transfer(t, at, size, precision: tl.constexpr):
    """Return p and q as operands, and the scale that they were divided by."""
    p, q, scale = tl.load(t + at), tl.load(t + size + at), 1.0
    if precision == "float16":
        scale = _top(tl.maximum(tl.abs(p), tl.abs(q)))
    return _operand(p / scale, precision), _operand(q / scale, precision), scale


@triton.jit
def _multiply(a, b, p, q, first, precision: tl.constexpr):
    """Return the spectrum (A, B) times t; `first` is true on the first column."""
    a, b = _operand(a, precision), _operand(b, precision)
    mixed = tl.where(first, 0.0, q).to(q.dtype)
    return p * a + mixed * b, tl.where(first, q, p) * b + mixed * a


@triton.jit
def _cross(a, b, a_g, b_g, first):
    """Return the gradients of <g, product(x, t)> in p and in q."""
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
    """Write y = F^-1 (t F x) for one channel and a chunk of the batch."""
    channel, start = tl.program_id(0), tl.program_id(1) * chunk
    pixels, waves = _grid(H, W), _grid(H, W // 2)
    size: tl.constexpr = H * (W // 2)
    first = tl.arange(0, W // 2)[None, :] == 0
    p, q, t_scale = _load_transfer(t + channel * 2 * size, waves, size, precision)
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
    """Write grad_x = F^-1 (t F g), and grad_t: the cross spectrum summed over a chunk."""
    channel, start = tl.program_id(0), tl.program_id(1) * chunk
    pixels, waves = _grid(H, W), _grid(H, W // 2)
    size: tl.constexpr = H * (W // 2)
    first = tl.arange(0, W // 2)[None, :] == 0
    p, q, t_scale = _load_transfer(t + channel * 2 * size, waves, size, precision)
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
    """Return a tile of a matrix in float32, with zeros outside the matrix."""
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
    """Write a tile of y = x @ matrix, x (height, length), matrix (length, width)."""
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
    """Return a tile of M A and of N B; z (H, 2 K) holds A and B side by side."""
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
    """Transform z along the height, multiply by t, and transform back, in place.

    z holds images whose rows are transformed already. V is scratch space of its size.
    Unless z_x is None, the cross spectrum of z and z_x is added to grad_t of this chunk.
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
        tl.debug_barrier()  # wait until all threads have written their rows of V
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
    """Return the grid (channels, chunks), and the sizes (batch, channels, chunk length).

    `wanted` is the number of programs per multiprocessor, `per_channel` the number of
    programs that share a channel.
    """
    batch, channels = x.shape[:2]
    if x.is_cuda:
        wanted *= torch.cuda.get_device_properties(x.device).multi_processor_count
    chunk = triton.cdiv(batch, max(1, wanted // (channels * per_channel)))
    return (channels, triton.cdiv(batch, max(1, chunk))), (batch, channels, chunk)


def _options(x: Tensor) -> dict[str, Any]:
    """Return the constants of a one-pass kernel, with one warp per 16 rows.

    More warps would compute the same products twice.
    """
    height, width = x.shape[2:]
    shape = {"H": height, "W": width, "precision": _precision(x)}
    return {**shape, "num_warps": height // 16}


def _rows(x: Tensor, matrix: Tensor, dtype: torch.dtype, like: Tensor) -> Tensor:
    """Return x @ matrix, in the precision for images like `like`: a pass over rows."""
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
    """Run the pass over columns on z in place; return the cross spectrum with z_x."""
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
