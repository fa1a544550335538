"""The fused kernels against float64; run by test_fused.py in a process of its own.

Triton reads TRITON_INTERPRET when a kernel is defined: with it the kernels run on a CPU.
"""

import os

import pytest
import torch
from torch import Tensor

from imex_experiments import ImplicitConv2d
from imex_experiments.operators import fused_triton, gram_triton
from imex_experiments.operators.implicit_conv import (
    factors_of,
    resolvent,
    symbol_product,
    transform_of,
)
from imex_experiments.operators.stencils import gram_symbol
from imex_experiments.operators.transforms import (
    PeriodicFft,
    PeriodicGemm,
    PeriodicTriton,
    choose,
)

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 5e-3, torch.float16: 1e-3}

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
    (3, 2, 40, 72, torch.float32),
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


def error(found: Tensor, exact: Tensor) -> float:
    return float(((found.double() - exact).norm() / exact.norm()).detach())


@pytest.mark.parametrize(("batch", "channels", "height", "width", "dtype"), CASES)
def test_product_and_gradients_agree_with_float64(
    batch: int, channels: int, height: int, width: int, dtype: torch.dtype
) -> None:
    x, g, b = problem(batch, channels, height, width, dtype)
    exact = derivatives(x.double(), g.double(), b.double(), "fft")
    found = derivatives(x, g, b, "fused")
    assert [one.dtype for one in found] == [dtype, dtype, torch.float32]
    errors = [error(*pair) for pair in zip(found[:2], exact[:2], strict=True)]
    taps = (found[2] - exact[2]).abs().amax() / summands(x, g, b)
    assert max(*errors, float(taps.detach())) <= TOLERANCE[dtype], (errors, taps)


@pytest.mark.parametrize("height", [64, 40])
def test_images_may_lie_in_memory_as_they_like(height: int) -> None:
    x, _, b = problem(3, 2, height, 32, torch.float32)
    F = transform_of(x, "periodic", "fused")
    assert isinstance(F, PeriodicTriton)
    symbol = gram_symbol(b, F.size)
    exact = symbol_product(x.double(), symbol.double(), backend="fft")
    last = x.to(memory_format=torch.channels_last)
    strided = torch.cat([x, x], -1)[..., :32]
    t = factors_of(symbol, x, F)
    for image in (x, last, strided):
        assert error(F.product(image, t), exact) <= 2e-6


@pytest.mark.parametrize("size", [(64, 32), (9, 7), (5, 8)])
@pytest.mark.parametrize("kernel", [3, 5])
def test_factors_from_taps_are_those_of_the_symbol(
    size: tuple[int, int], kernel: int
) -> None:
    """Values and gradients, first and second, of (I + B^T B)^-1."""
    x = torch.zeros(1, 2, *size, device=DEVICE)
    b = torch.randn(2, kernel, kernel, device=DEVICE, requires_grad=True)
    F = transform_of(x, "periodic", "fused")
    assert isinstance(F, PeriodicTriton)
    results = []
    for t in (
        F.gram_factors(b),
        factors_of(resolvent(gram_symbol(b, size), 1.0), x, F),
    ):
        g = torch.randn(t.shape, device=DEVICE, generator=seeded())
        if size[1] % 2:  # no wave W / 2: an entry that nothing reads
            g[:, 1, :, 0] = 0
            t[:, 1, :, 0].detach().zero_()
        (first,) = torch.autograd.grad(t, b, g, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), b)
        results.append((t, first, second))
    for found, exact in zip(*results, strict=True):
        assert error(found, exact.double()) <= 1e-5


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
    for pair in zip(second(x, g, b, "fused"), exact, strict=True):
        assert error(*pair) <= 1e-5


@pytest.mark.parametrize("height", [32, 40])
def test_operators_are_known_to_torch(height: int) -> None:
    x, g, b = problem(2, 2, height, 32, torch.float32)
    F = PeriodicTriton((height, 32))
    t = factors_of(gram_symbol(b, F.size), x, F).requires_grad_()
    x.requires_grad_(), g.requires_grad_(), b.requires_grad_()
    torch.library.opcheck(fused_triton.product, (x, t), atol=1e-4, rtol=1e-4)
    torch.library.opcheck(fused_triton.gradients, (g, x, t), atol=1e-3, rtol=1e-4)
    torch.library.opcheck(gram_triton.gram_factors, (b, *F.size))
    torch.library.opcheck(gram_triton.gram_gradients, (b.detach(), t.detach(), *F.size))


def test_compiled_without_breaks() -> None:
    layer = ImplicitConv2d(2, alpha=3.0, backend="fused").to(DEVICE)
    traced = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x = problem(2, 2, 32, 32, torch.float32)[0].requires_grad_()
    results = []
    for solve in (layer, traced):
        y = solve(x)
        results.append([y, *torch.autograd.grad(y.pow(3).sum(), [x, layer.L.B])])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


def test_autocast_keeps_the_dtype_of_the_image() -> None:
    layer = ImplicitConv2d(2, backend="fused").to(DEVICE)
    x = problem(2, 2, 32, 32, torch.bfloat16)[0].requires_grad_()
    with torch.autocast(DEVICE, torch.bfloat16):
        y = layer(x)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == torch.bfloat16
    exact = ImplicitConv2d(2, backend="gemm").to(DEVICE)(x.float())
    assert error(y, exact.double()) <= 5e-3


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
