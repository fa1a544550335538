"""The product of `fused` as Triton kernels, with the transform of `PeriodicGemm`.

Shapes: images x, y, g (B, C, H, W) bfloat16, float16 or float32; factors t (C, 3, H, K)
float32, K = ceil(W / 2); matrices M, N (H, H) and CS (2 K, W) as there.

Planes with sides of 32 and 64 take one pass: a program has one channel and a chunk of the
batch, holds matrices and factors, and reads and writes each plane once. Larger ones, whose
matrices do not fit beside each other into the memory of a multiprocessor, take three:
rows, columns with the symbol, rows. The gradient of t needs the spectra of x and of g.
That of x is made again in the pass that makes that of g: what is kept is x itself, at its
own width, where a spectrum would be float32. Products of float32 images are three TF32
products. Half-precision ones are float16 in one pass, which has TF32's digits at twice the
speed: a plane is divided by its largest value before, and the factors by theirs, so that
nothing leaves float16's range. In three passes they are TF32. Sums are float32.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from imex_experiments.operators import fused
from imex_experiments.operators.transforms import PeriodicGemm

ONE_PASS = (32, 64)
"""Sides of planes that a program holds as a whole."""

PROGRAMS = 4
"""Per multiprocessor: chunks of a batch are as long as leaves about so many."""

TILE = 64, 32, 32
"""Rows, columns and the sum's length of a product in three passes."""


@triton.jit
def _grid(rows: tl.constexpr, columns: tl.constexpr):
    return tl.arange(0, rows)[:, None] * columns + tl.arange(0, columns)[None, :]


@triton.jit
def _operand(x, precision: tl.constexpr):
    """Return x as the products take it."""
    if precision == "float16":
        return x.to(tl.float16)
    else:  # noqa: RET505
        return x


@triton.jit
def _dot(a, b, precision: tl.constexpr):
    """Return a @ b in float32."""
    if precision == "float16":
        return tl.dot(a.to(tl.float16), b.to(tl.float16))
    else:  # noqa: RET505; a compiled branch
        return tl.dot(a, b, input_precision=precision)


@triton.jit
def _top(x):
    """Return the largest |x|, or 1 where all are 0."""
    top = tl.max(tl.max(tl.abs(x), 1), 0)
    return tl.where(top > 0, top, 1.0)


@triton.jit
def _load_plane(x, precision: tl.constexpr):
    """Return a plane in float32 and its scale: divided by it for float16 products."""
    plane = tl.load(x).to(tl.float32)
    if precision == "float16":
        scale = _top(plane)
        return plane / scale, scale
    else:  # noqa: RET505
        return plane, 1.0


@triton.jit
def _matrices(M, N, CS, H: tl.constexpr, W: tl.constexpr, precision: tl.constexpr):
    """M, N, C and S."""
    square, wide = _grid(H, H), _grid(W // 2, W)
    m = _operand(tl.load(M + square), precision)
    n = _operand(tl.load(N + square), precision)
    c = _operand(tl.load(CS + wide), precision)
    return m, n, c, _operand(tl.load(CS + W // 2 * W + wide), precision)


@triton.jit
def _factors(t, at, size):
    """p of A, p of B, and q."""
    return tl.load(t + at), tl.load(t + size + at), tl.load(t + 2 * size + at)


@triton.jit
def _scaled(p, p_last, q, precision: tl.constexpr):
    """Return the factors and their scale: divided by it for float16 products."""
    if precision == "float16":
        scale = _top(tl.maximum(tl.abs(p), tl.abs(p_last)) + tl.abs(q))
        return p / scale, p_last / scale, q / scale, scale
    else:  # noqa: RET505
        return p, p_last, q, 1.0


@triton.jit
def _waves(x, m, n, c, s, precision: tl.constexpr):
    """A = M x C^T and B = N x S^T."""
    x = _operand(x, precision)
    a = _dot(x, tl.trans(c), precision)
    b = _dot(x, tl.trans(s), precision)
    return _dot(m, a, precision), _dot(n, b, precision)


@triton.jit
def _plane(a, b, m, n, c, s, precision: tl.constexpr):
    """M A C + N B S."""
    a = _dot(m, a, precision)
    b = _dot(n, b, precision)
    return _dot(a, c, precision) + _dot(b, s, precision)


@triton.jit
def _product_kernel(
    x,
    t,
    residual,
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
    """y = F^-1 (t F x), plus the residual unless that is None."""
    channel, first = tl.program_id(0), tl.program_id(1) * chunk
    pixels, waves = _grid(H, W), _grid(H, W // 2)
    size: tl.constexpr = H * (W // 2)
    p, p_last, q = _factors(t + channel * 3 * size, waves, size)
    p, p_last, q, t_scale = _scaled(p, p_last, q, precision)
    m, n, c, s = _matrices(M, N, CS, H, W, precision)
    for image in range(first, min(first + chunk, batch)):
        plane = (image * channels + channel).to(tl.int64) * (H * W) + pixels
        values, scale = _load_plane(x + plane, precision)
        a, b = _waves(values, m, n, c, s, precision)
        out = _plane(p * a + q * b, p_last * b + q * a, m, n, c, s, precision)
        out *= scale * t_scale
        if residual is not None:
            out += tl.load(residual + plane).to(tl.float32)
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
    channel, first = tl.program_id(0), tl.program_id(1) * chunk
    pixels, waves = _grid(H, W), _grid(H, W // 2)
    size: tl.constexpr = H * (W // 2)
    m, n, c, s = _matrices(M, N, CS, H, W, precision)
    p, p_last, q = _factors(t + channel * 3 * size, waves, size)
    _, _, _, t_scale = _scaled(p, p_last, q, precision)
    d_p = tl.zeros((H, W // 2), tl.float32)
    d_p_last = tl.zeros((H, W // 2), tl.float32)
    d_q = tl.zeros((H, W // 2), tl.float32)
    for image in range(first, min(first + chunk, batch)):
        plane = (image * channels + channel).to(tl.int64) * (H * W) + pixels
        values, scale = _load_plane(x + plane, precision)
        a, b = _waves(values, m, n, c, s, precision)
        values, g_scale = _load_plane(g + plane, precision)
        a_g, b_g = _waves(values, m, n, c, s, precision)
        d_p += scale * g_scale * a * a_g
        d_p_last += scale * g_scale * b * b_g
        d_q += scale * g_scale * (a * b_g + b * a_g)
        # Read for each image: beside the sums there are no registers to hold them.
        p, p_last, q = _factors(t + channel * 3 * size, waves, size)
        a, b = (p * a_g + q * b_g) / t_scale, (p_last * b_g + q * a_g) / t_scale
        out = _plane(a, b, m, n, c, s, precision) * (g_scale * t_scale)
        tl.store(grad_x + plane, out.to(grad_x.dtype.element_ty))
    grad_t += (tl.program_id(1) * channels + channel) * 3 * size
    tl.store(grad_t + waves, d_p)
    tl.store(grad_t + size + waves, d_p_last)
    tl.store(grad_t + 2 * size + waves, d_q)


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
    residual,
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
    """y = x @ matrix, plus the residual unless that is None; x (height, length)."""
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
    if residual is not None:
        total += tl.load(residual + at, inside, 0).to(tl.float32)
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
    channel, first = tl.program_id(0), tl.program_id(2) * chunk
    columns = tl.program_id(1) * BK + tl.arange(0, BK)
    size = H * K
    t += channel * 3 * size
    for image in range(first, min(first + chunk, batch)):
        plane = (image * channels + channel).to(tl.int64) * (2 * size)
        for top in range(0, H, BH):
            rows = top + tl.arange(0, BH)
            inside = (rows[:, None] < H) & (columns[None, :] < K)
            at = rows[:, None] * K + columns[None, :]
            out = plane + rows[:, None] * (2 * K) + columns[None, :]
            a, b = _columns_product(M, N, z + plane, rows, columns, H, K, BL, precision)
            p, p_last, q = (
                tl.load(t + at, inside, 0),
                tl.load(t + size + at, inside, 0),
                tl.load(t + 2 * size + at, inside, 0),
            )
            tl.store(V + out, p * a + q * b, inside)
            tl.store(V + out + K, p_last * b + q * a, inside)
            if z_x is not None:
                a_x, b_x = _columns_product(
                    M, N, z_x + plane, rows, columns, H, K, BL, precision
                )
                d = grad_t + (tl.program_id(2) * channels + channel) * 3 * size + at
                tl.store(d, tl.load(d, inside, 0) + a * a_x, inside)
                d += size
                tl.store(d, tl.load(d, inside, 0) + b * b_x, inside)
                d += size
                tl.store(d, tl.load(d, inside, 0) + a * b_x + b * a_x, inside)
        tl.debug_barrier()  # all of V's rows, by all threads
        for top in range(0, H, BH):
            rows = top + tl.arange(0, BH)
            inside = (rows[:, None] < H) & (columns[None, :] < K)
            out = plane + rows[:, None] * (2 * K) + columns[None, :]
            a, b = _columns_product(M, N, V + plane, rows, columns, H, K, BL, precision)
            tl.store(z + out, a, inside)
            tl.store(z + out + K, b, inside)


@torch.library.custom_op("imex_experiments::triton_product", mutates_args=())
def product(x: Tensor, t: Tensor, residual: Tensor | None = None) -> Tensor:
    """F^-1 (t F x) + residual, x and residual of one shape and dtype."""
    x, t = x.contiguous(), t.contiguous()
    residual = None if residual is None else residual.contiguous()
    M, N, CS = _matrices_of(x)
    if not one_pass(x):
        z = _rows(x, CS.mT, torch.float32, x)
        _columns(z, t, M, N, x)
        return _rows(z, CS, x.dtype, x, residual)
    y = torch.empty_like(x)
    grid, sizes = _programs(x)
    _product_kernel[grid](
        x, t, residual, y, M, N, CS, *sizes, **_options(x), num_stages=2
    )
    return y


@torch.library.custom_op("imex_experiments::triton_gradients", mutates_args=())
def gradients(g: Tensor, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Those of x and of t: F^-1 (t F g), and the cross spectrum of x and g."""
    g, x, t = g.contiguous(), x.contiguous(), t.contiguous()
    M, N, CS = _matrices_of(x)
    if not one_pass(x):
        z, z_x = (_rows(image, CS.mT, torch.float32, x) for image in (g, x))
        grad_t = _columns(z, t, M, N, x, z_x)
        return _rows(z, CS, x.dtype, x), grad_t
    grad_x = torch.empty_like(x)
    grid, sizes = _programs(x)
    grad_t = t.new_empty((grid[1], *t.shape))
    _gradients_kernel[grid](
        g, x, t, grad_x, grad_t, M, N, CS, *sizes, **_options(x), num_stages=1
    )
    return grad_x, grad_t.sum(0)


fused.make_differentiable(product, gradients)


def one_pass(x: Tensor) -> bool:
    """Whether a program holds planes like those of x as a whole."""
    return x.shape[-2] in ONE_PASS and x.shape[-1] in ONE_PASS


def _matrices_of(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return PeriodicGemm((x.shape[-2], x.shape[-1])).matrices(x.new_empty(0).float())


def _precision(x: Tensor) -> str:
    if x.dtype == torch.float32:
        return "tf32x3"
    return "float16" if one_pass(x) else "tf32"


def _programs(
    x: Tensor, per_channel: int = 1
) -> tuple[tuple[int, int], tuple[int, int, int]]:
    """Channels and chunks of the batch, and what tells a program its images."""
    batch, channels = x.shape[:2]
    wanted = PROGRAMS
    if x.is_cuda:
        wanted *= torch.cuda.get_device_properties(x.device).multi_processor_count
    chunk = triton.cdiv(batch, max(1, wanted // (channels * per_channel)))
    return (channels, triton.cdiv(batch, max(1, chunk))), (batch, channels, chunk)


def _options(x: Tensor) -> dict[str, Any]:
    """A warp for 16 rows: more would repeat each other's products."""
    height, width = x.shape[2:]
    shape = {"H": height, "W": width, "precision": _precision(x)}
    return {**shape, "num_warps": height // 16}


def _rows(
    x: Tensor,
    matrix: Tensor,
    dtype: torch.dtype,
    like: Tensor,
    residual: Tensor | None = None,
) -> Tensor:
    """x @ matrix + residual: the first and the last pass, as precise as `like` asks for."""
    length, width = matrix.shape
    height = x.numel() // length
    y = x.new_empty((*x.shape[:-1], width), dtype=dtype)
    tile = dict(zip(("BH", "BW", "BL"), TILE, strict=True))
    grid = triton.cdiv(height, tile["BH"]), triton.cdiv(width, tile["BW"])
    _rows_kernel[grid](
        x, matrix, residual, y, height, length, width, *matrix.stride(),
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
    (channels, chunks), sizes = _programs(z, blocks)
    grad_t = t.new_zeros((chunks if z_x is not None else 0, *t.shape))
    _columns_kernel[channels, blocks, chunks](
        z, t, z_x, grad_t, torch.empty_like(z), M, N, *sizes, height, half,
        **tile, precision=_precision(like), num_stages=1,
    )  # fmt: skip
    return grad_t.sum(0)
