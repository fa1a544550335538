"""The fused kernels against float64; run by test_fused.py in a process of its own.

Triton reads TRITON_INTERPRET when a kernel is defined: with it the kernels run on a CPU.
"""

import os

import pytest
import torch
from torch import Tensor

from imex_experiments import ImplicitConv2d
from imex_experiments.operators import fused_triton
from imex_experiments.operators.implicit_conv import (
    factors_of,
    symbol_product,
    transform_of,
)
from imex_experiments.operators.stencils import gram_symbol
from imex_experiments.operators.transforms import PeriodicGemm, PeriodicTriton, choose

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 5e-3, torch.float16: 1e-3}

CASES = [
    # One pass: five images in chunks of three and two
    (5, 2, 32, 32, torch.float32),
    (5, 2, 64, 64, torch.float32),
    (5, 2, 64, 64, torch.bfloat16),
    (5, 2, 32, 64, torch.float16),
    (3, 8, 64, 32, torch.bfloat16),
    # Three passes: edges of tiles, odd sides, more than one tile in each direction
    (3, 2, 40, 72, torch.float32),
    (2, 1, 35, 67, torch.bfloat16),
    (1, 1, 128, 128, torch.bfloat16),
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
    errors = [error(*pair) for pair in zip(found, exact, strict=True)]
    assert max(errors) <= TOLERANCE[dtype], errors


@pytest.mark.parametrize("height", [64, 40])
def test_residual_and_layout(height: int) -> None:
    """A sum is fused, and images may lie in memory as they like."""
    x, r, b = problem(3, 2, height, 32, torch.float32)
    F = transform_of(x, "periodic", "fused")
    assert isinstance(F, PeriodicTriton)
    t = factors_of(gram_symbol(b, F.size), x, F)
    exact = r + PeriodicGemm(F.size).inverse(F.multiply(F.forward(x), t))
    last = x.to(memory_format=torch.channels_last)
    strided = torch.cat([r, r], -1)[..., :32]
    assert error(F.product(last, t, strided), exact.double()) <= 2e-6
    r.requires_grad_()
    (grad,) = torch.autograd.grad(F.product(x, t, r).sum(), r)
    assert torch.equal(grad, torch.ones_like(r))


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
    x.requires_grad_(), g.requires_grad_()
    torch.library.opcheck(fused_triton.product, (x, t, g), atol=1e-4, rtol=1e-4)
    torch.library.opcheck(fused_triton.gradients, (g, x, t), atol=1e-3, rtol=1e-4)


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
@pytest.mark.parametrize("side", [64, 128, 512])
def test_auto_takes_the_kernels_on_a_device(side: int) -> None:
    x = torch.ones(1, 1, side, side, device=DEVICE)
    assert isinstance(transform_of(x, "periodic", "auto"), PeriodicTriton) == (
        side < 512
    )


def test_other_boundaries_have_no_kernels() -> None:
    with pytest.raises(ValueError, match="backend=fused has no neumann boundary"):
        choose((64, 64), "neumann", "fused", "triton")
