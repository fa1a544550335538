"""The fused kernels against float64; run by test_fused.py in a process of its own.

Triton reads TRITON_INTERPRET when a kernel is defined: with it the kernels run on a CPU.
"""

import os

import pytest
import torch
from conftest import relative_error, rounding, sensitivity
from torch import Tensor

from imex_experiments import ImplicitConv2d
from imex_experiments.operators.implicit_conv import (
    resolvent,
    symbol_product,
    transfer_of,
    transform_of,
)
from imex_experiments.operators.kernels import gram_triton, triton
from imex_experiments.operators.select import choose
from imex_experiments.operators.stencils import gram_symbol
from imex_experiments.operators.transforms import (
    PeriodicFft,
    PeriodicGemm,
    PeriodicTriton,
)

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"

CASES = [
    # One pass: five images in chunks of three and two
    (5, 2, 32, 32, torch.float32),
    (5, 2, 64, 64, torch.float32),
    (5, 2, 64, 64, torch.bfloat16),
    (5, 2, 32, 64, torch.float16),
    (3, 8, 64, 32, torch.bfloat16),
    (2, 1, 64, 128, torch.float16),
    (1, 1, 128, 128, torch.bfloat16),
    # Three passes: edges of tiles, odd sides, more than one tile in each direction
    (2, 1, 40, 72, torch.float32),
    (2, 1, 35, 67, torch.bfloat16),
    (1, 1, 96, 160, torch.float32),
    # Images smaller than the stencil
    (2, 2, 1, 1, torch.float32),
    (2, 1, 2, 1, torch.float32),
    (1, 2, 1, 5, torch.float32),
]


def problem(
    batch: int, channels: int, height: int, width: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Images, gradients and taps without any symmetry, on the device."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, batch, channels, height, width, generator=generator)
    taps = torch.randn(channels, 3, 3, generator=generator)
    x, g = images.to(DEVICE, dtype)
    return x, g, taps.to(DEVICE)


def derivatives(x: Tensor, g: Tensor, b: Tensor, backend: str) -> list[Tensor]:
    """The product, and the gradients of image and stencil."""
    x, b = x.clone().requires_grad_(), b.clone().requires_grad_()
    symbol = 1 / (1 + 10 * gram_symbol(b, (x.shape[-2], x.shape[-1])))
    y = symbol_product(x, symbol, backend=backend)
    return [y, *torch.autograd.grad(y, (x, b), g)]


def summands(x: Tensor, g: Tensor, b: Tensor) -> Tensor:
    """The largest sum of |summands| of a tap's gradient, which has the rounding of all.

    d t = -10 t^2 d |B^|^2, and |d |B^|^2| <= 2 |B^| for one tap.
    """
    size = x.shape[-2], x.shape[-1]
    squared = gram_symbol(b.double(), size)
    t = (1 / (1 + 10 * squared)).requires_grad_()
    y = symbol_product(x.double(), t, backend="fft")
    (of_t,) = torch.autograd.grad(y, t, g.double())
    return (of_t.abs() * 10 * t.square() * 2 * squared.sqrt()).sum((1, 2)).amax()


def tolerance(dtype: torch.dtype, size: tuple[int, ...], condition: float = 0) -> float:
    """Bound the relative error of a product with a symbol, images (H, W) of a dtype.

    Sums of H, W, W and H terms in float32. Factors that are made of taps add the
    rounding of nine terms times `condition`. Half precision adds that of its operands,
    five in a row of 11 bits (float16 and TF32 alike), and that of the result.
    """
    found = rounding(torch.float32, 2 * sum(size))
    found += rounding(torch.float32, 9, condition)
    if dtype != torch.float32:
        found += rounding(torch.float16, 5) / 2 + rounding(dtype, 1) / 2
    return found


@pytest.mark.parametrize(("batch", "channels", "height", "width", "dtype"), CASES)
def test_product_and_gradients_agree_with_float64(
    batch: int, channels: int, height: int, width: int, dtype: torch.dtype
) -> None:
    x, g, b = problem(batch, channels, height, width, dtype)
    exact = derivatives(x.double(), g.double(), b.double(), "fft")
    found = derivatives(x, g, b, "fused")
    assert [one.dtype for one in found] == [dtype, dtype, torch.float32]
    allowed = tolerance(dtype, (height, width), sensitivity(b, 10))
    for pair in zip(found[:2], exact[:2], strict=True):
        assert relative_error(*pair) <= allowed
    # A summand has the errors of two spectra and of t^2 |B^|; rows and columns are added.
    taps = (found[2] - exact[2]).abs().amax() / summands(x, g, b)
    assert float(taps.detach()) <= 4 * allowed


@pytest.mark.parametrize("height", [64, 40])
def test_images_may_lie_in_memory_as_they_like(height: int) -> None:
    x, _, b = problem(3, 2, height, 32, torch.float32)
    F = transform_of(x, "periodic", "fused")
    assert isinstance(F, PeriodicTriton)
    symbol = gram_symbol(b.double(), F.size)
    exact = symbol_product(x.double(), symbol, backend="fft")
    last = x.to(memory_format=torch.channels_last)
    strided = torch.cat([x, x], -1)[..., :32]
    t = transfer_of(symbol.float(), x, F)
    for image in (x, last, strided):
        found = F.product(image, t)
        assert relative_error(found, exact) <= tolerance(x.dtype, F.size)


@pytest.mark.parametrize("size", [(64, 32), (9, 7), (5, 8)])
@pytest.mark.parametrize("kernel", [3, 5])
def test_factors_from_taps_are_those_of_the_symbol(
    size: tuple[int, int], kernel: int
) -> None:
    """Values and gradients, first and second, of (I + B^T B)^-1, against float64."""
    x = torch.zeros(1, 2, *size, device=DEVICE)
    b = torch.randn(2, kernel, kernel, device=DEVICE, requires_grad=True)
    F = transform_of(x, "periodic", "fused")
    assert isinstance(F, PeriodicTriton)
    exact_b = b.detach().double().requires_grad_()
    symbol = resolvent(gram_symbol(exact_b, size), 1.0)
    results = []
    for t, b_of_t in (
        (F.gram_transfer(b), b),
        (transfer_of(symbol, x.double(), F), exact_b),
    ):
        g = torch.randn(t.shape, device=DEVICE, generator=seeded()).to(t.dtype)
        if size[1] % 2:  # no wave W / 2: an entry that nothing reads
            g[:, 1, :, 0] = 0
            t[:, 1, :, 0].detach().zero_()
        (first,) = torch.autograd.grad(t, b_of_t, g, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), b_of_t)
        results.append((t, first, second))
    # B^ is a sum over the taps, a gradient one over all waves; each derivative adds both.
    terms = kernel**2 + sum(size)
    for order, (found, exact) in enumerate(zip(*results, strict=True), 1):
        allowed = rounding(torch.float32, order * terms, sensitivity(b, 1))
        assert relative_error(found, exact) <= allowed


def seeded() -> torch.Generator:
    return torch.Generator(DEVICE).manual_seed(0)


@pytest.mark.parametrize("height", [32, 40])
def test_second_derivatives(height: int) -> None:
    def second(x: Tensor, g: Tensor, b: Tensor, backend: str) -> tuple[Tensor, ...]:
        x, g, b = (one.clone().requires_grad_() for one in (x, g, b))
        symbol = 1 / (1 + gram_symbol(b, (height, 32)))
        y = symbol_product(x, symbol, backend=backend).pow(3)
        first = torch.autograd.grad(y, (x, b), g, create_graph=True)
        return torch.autograd.grad(sum(one.square().sum() for one in first), (x, g, b))

    x, g, b = problem(2, 2, height, 32, torch.float32)
    exact = second(x.double(), g.double(), b.double(), "fft")
    # Four solves in a row; cubes, which treble a relative error, on the way there and back.
    allowed = 4 * 3 * 3 * tolerance(torch.float32, (height, 32), sensitivity(b, 1))
    for pair in zip(second(x, g, b, "fused"), exact, strict=True):
        assert relative_error(*pair) <= allowed


@pytest.mark.parametrize("height", [32, pytest.param(40, marks=pytest.mark.slow)])
def test_operators_are_known_to_torch(height: int) -> None:
    x, g, b = problem(1, 1, height, 32, torch.float32)
    F = PeriodicTriton((height, 32))
    t = transfer_of(gram_symbol(b, F.size), x, F).requires_grad_()
    x.requires_grad_(), g.requires_grad_(), b.requires_grad_()
    torch.library.opcheck(triton.product, (x, t), atol=1e-4, rtol=1e-4)
    torch.library.opcheck(triton.gradients, (g, x, t), atol=1e-3, rtol=1e-4)
    torch.library.opcheck(gram_triton.gram_transfer, (b, *F.size))
    torch.library.opcheck(gram_triton.gram_gradients, (b.detach(), t.detach(), *F.size))


def test_compiled_without_breaks() -> None:
    layer = ImplicitConv2d(2, alpha=3.0, backend="fused").to(DEVICE)
    traced = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x = problem(2, 2, 32, 32, torch.float32)[0].requires_grad_()
    results = []
    for solve in (layer, traced):
        y = solve(x)
        results.append([y, *torch.autograd.grad(y.pow(3).sum(), [x, layer.L.B])])
    for pair in zip(*results, strict=True):  # the same kernels: sums in another order
        assert relative_error(*pair) <= rounding(torch.float32, 2 * (32 + 32))


def test_autocast_keeps_the_dtype_of_the_image() -> None:
    layer = ImplicitConv2d(2, backend="fused").to(DEVICE)
    x = problem(2, 2, 32, 32, torch.bfloat16)[0].requires_grad_()
    with torch.autocast(DEVICE, torch.bfloat16):
        y = layer(x)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == torch.bfloat16
    exact = ImplicitConv2d(2, backend="gemm").to(DEVICE)(x.float())
    condition = sensitivity(layer.L.B, float(layer.L.alpha))
    assert relative_error(y, exact) <= tolerance(x.dtype, (32, 32), condition)


def test_images_without_kernels_are_solved_by_products() -> None:
    x = torch.ones(1, 1, 32, 32, device="meta")
    assert type(transform_of(x, "periodic", "fused")) is PeriodicGemm


@pytest.mark.skipif(DEVICE != "cuda", reason="no CUDA device")
@pytest.mark.parametrize("side", [64, 96])
def test_auto_takes_the_kernels_on_a_device(side: int) -> None:
    x = torch.ones(1, 1, side, side, device=DEVICE)
    kind = PeriodicTriton if side == 64 else PeriodicFft
    assert type(transform_of(x, "periodic", "auto")) is kind


def test_other_boundaries_have_no_kernels() -> None:
    with pytest.raises(ValueError, match="backend=fused has no neumann boundary"):
        choose((64, 64), "neumann", "fused", "triton")
