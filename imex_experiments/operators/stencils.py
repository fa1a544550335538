"""Stencils, and their symbols: the factors lambda(k) by which a stencil scales each wave.

Shapes: taps (C, kh, kw), kh and kw odd. Symbols are real: (C, H, W // 2 + 1) for a periodic
boundary, the half spectrum of `torch.fft.rfft2`; (C, H, W) for neumann and dirichlet.

An image may be smaller than a stencil, down to a single pixel. It continues beyond its
edges: around the torus (periodic), mirrored at the edge (neumann), or mirrored with the
opposite sign at the zero one pixel outside (dirichlet). Taps that reach the same pixel add.
"""

from typing import Any

import torch
from torch import Tensor

from imex_experiments.operators.precision import (
    angles,
    build_device,
    constant,
    without_autocast,
)
from imex_experiments.operators.tracing import is_transformed

LAPLACIAN = (
    (-1 / 6, -4 / 6, -1 / 6),
    (-4 / 6, 20 / 6, -4 / 6),
    (-1 / 6, -4 / 6, -1 / 6),
)
"""The nine-point negative Laplacian, unit mesh size (IMEXnet eq. 7)."""


def laplacian(kernel_size: int = 3) -> Tensor:
    """Return the 3 x 3 Laplacian of IMEXnet eq. 7, zero-padded to the kernel size.

    Raises ValueError for an even kernel size or one below 3.
    """
    margin = (require_odd(kernel_size, at_least=3) - 3) // 2
    return torch.nn.functional.pad(torch.tensor(LAPLACIAN), [margin] * 4)


def require_odd(kernel_size: int, at_least: int = 1) -> int:
    """Return the kernel size; ValueError if it is too small, or even: without a centre."""
    if kernel_size < at_least or kernel_size % 2 == 0:
        raise ValueError(
            f"kernel_size must be odd and >= {at_least}, got {kernel_size}"
        )
    return kernel_size


def zero_mean(taps: Tensor) -> Tensor:
    """Subtract the mean from the taps, so that the stencil maps constants to zero."""
    return taps - taps.mean(dim=(-2, -1), keepdim=True)


def _along_axis(
    offsets: int, side: int, waves: int, boundary: str, on: torch.device
) -> Tensor:
    """Return the angles k d along an axis, (offsets, waves), float64.

    d is the offset of a tap from the centre and n the number of pixels. The wave number k
    is 2 pi i / n for periodic, pi i / n for neumann, pi (i + 1) / (n + 1) for dirichlet.
    """
    shift, period = {"periodic": (0, side), "neumann": (0, 2 * side)}.get(
        boundary, (1, 2 * (side + 1))
    )
    d = torch.arange(offsets, device=on) - offsets // 2
    return angles(d, torch.arange(waves, device=on) + shift, period)


@constant
def axis_phases(
    offsets: int, side: int, waves: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return cos(k d) and sin(k d) of a periodic axis, each (offsets, waves)."""
    angle = _along_axis(offsets, side, waves, "periodic", build_device(device))
    return angle.cos().to(device, dtype), angle.sin().to(device, dtype)


@constant
def _phases(
    kernel: tuple[int, int],
    size: tuple[int, int],
    boundary: str,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Return cos(k.d) and sin(k.d), each (kh kw, number of wave vectors k).

    Neumann and dirichlet waves are products of a wave along each axis. On them only the
    part of a stencil that is symmetric in both axes acts, through cos(k1 d1) cos(k2 d2).
    The sines are zero.
    """
    (kh, kw), (height, width) = kernel, size
    waves = width // 2 + 1 if boundary == "periodic" else width
    on = build_device(device)
    rows = _along_axis(kh, height, height, boundary, on)[:, None, :, None]
    columns = _along_axis(kw, width, waves, boundary, on)[None, :, None, :]
    if boundary == "periodic":
        even, odd = (rows + columns).cos(), (rows + columns).sin()
    else:
        even = rows.cos() * columns.cos()
        odd = torch.zeros_like(even)
    return tuple(p.reshape(kh * kw, -1).to(device, dtype) for p in (even, odd))  # type: ignore[return-value]


def _check(taps: Tensor, size: tuple[int, int]) -> None:
    if taps.ndim != 3 or not taps.is_floating_point():
        raise ValueError(
            f"taps must be floating point (C, kh, kw), got {taps.dtype} {tuple(taps.shape)}"
        )
    for kernel in taps.shape[1:]:
        require_odd(kernel)
    if min(size) < 1:
        raise ValueError(f"images must have pixels, got size {tuple(size)}")
    # Reading a value back would stall a GPU, and is impossible in a traced graph.
    if taps.device.type == "cpu" and not is_transformed():
        finite = taps.detach().isfinite()
        if not finite.all():
            bad = float(taps.detach()[~finite][0])
            raise ValueError(
                f"taps must be finite, got {bad} among {tuple(taps.shape)}"
            )


def _sum_over_taps(taps: Tensor, phases: Tensor, size: tuple[int, int]) -> Tensor:
    """Return sum_d b_d phase(k.d), (C, H, waves), without autocast to half precision."""
    with without_autocast(taps):
        return (taps.flatten(1) @ phases).unflatten(1, (size[0], -1))


def _phases_like(
    taps: Tensor, size: tuple[int, int], boundary: str
) -> tuple[Tensor, Tensor]:
    _check(taps, size)
    kernel = (taps.shape[1], taps.shape[2])
    return _phases(kernel, size, boundary, taps.dtype, taps.device)


def even_symbol(
    taps: Tensor, size: tuple[int, int], boundary: str = "periodic"
) -> Tensor:
    """Return the symbol of a point-symmetric stencil, lambda(k) = sum_d b_d cos(k.d).

    Raises ValueError for taps that are not finite, not floating point, or even in size.
    """
    cosines, _ = _phases_like(taps, size, boundary)
    return _sum_over_taps(taps, cosines, size)


def gram_symbol(
    taps: Tensor, size: tuple[int, int], boundary: str = "periodic"
) -> Tensor:
    """Return the symbol of B^T B, lambda(k) = |B^(k)|^2 = (b.C)^2 + (b.S)^2 >= 0.

    b are the taps of B; C and S hold cos(k.d) and sin(k.d). Each product is a matrix
    product (C x kh kw)(kh kw x H W / 2), so no padded kernel and no FFT is needed. For
    neumann and dirichlet boundaries only the part of B that is symmetric in both axes
    acts: lambda = (b.C)^2. Raises ValueError like `even_symbol`.
    """
    cosines, sines = _phases_like(taps, size, boundary)
    if boundary != "periodic":
        return _sum_over_taps(taps, cosines, size).square()
    if is_transformed():
        even, odd = (_sum_over_taps(taps, part, size) for part in (cosines, sines))
        return even.square() + odd.square()
    with without_autocast(taps):
        return _SquaredModulus.apply(taps.flatten(1), cosines, sines).unflatten(
            1, (size[0], -1)
        )


class _SquaredModulus(torch.autograd.Function):
    """Compute (b C)^2 + (b S)^2 and keep only b for the backward pass.

    The symbol itself may be as large as the images.
    """

    @staticmethod
    def forward(ctx: Any, b: Tensor, C: Tensor, S: Tensor) -> Tensor:
        ctx.save_for_backward(b, C, S)
        even, odd = b @ C, b @ S
        return even.mul_(even).addcmul_(odd, odd)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        b, C, S = ctx.saved_tensors
        with without_autocast(b):
            # C @ even.mT has the short matrix on the left: half the time of even @ C.mT.
            even, odd = (b @ C).mul_(g), (b @ S).mul_(g)
            return (C @ even.mT).addmm_(S, odd.mT).mul_(2).mT, None, None
