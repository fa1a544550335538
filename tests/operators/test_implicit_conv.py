"""(I + h L)^-1, against dense linear algebra, and its derivatives against differences."""

from itertools import product

import numpy as np
import pytest
import scipy.linalg
import torch
from conftest import needs_kernels, relative_error, rounding, sensitivity
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from imex_experiments.operators.implicit_conv import solve_symbol, symbol_product
from imex_experiments.operators.stencils import (
    even_symbol,
    gram_symbol,
    laplacian,
    zero_mean,
)

SIZES = [(8, 8), (7, 7), (6, 9), (5, 4), (12, 3)]


def dense_periodic(taps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The matrix of a periodic stencil, entry by entry."""
    height, width = size
    kh, kw = taps.shape
    matrix = np.zeros((height * width, height * width))
    for i in range(height):
        for j in range(width):
            for p in range(kh):
                for q in range(kw):
                    row = (i + p - kh // 2) % height
                    column = (j + q - kw // 2) % width
                    matrix[i * width + j, row * width + column] += taps[p, q]
    return matrix


def solve_dense(x: np.ndarray, L: np.ndarray, h: float) -> np.ndarray:
    flat = x.reshape(-1, L.shape[0]).T
    return scipy.linalg.solve(np.eye(len(L)) + h * L, flat).T.reshape(x.shape)


def of_solve(x: Tensor, condition: float = 1.0) -> float:
    """Bound the error of a solve: sums of H, W, W and H terms, factors of nine taps."""
    length = 2 * (x.shape[-2] + x.shape[-1])
    return rounding(x.dtype, length) + rounding(x.dtype, 9, condition)


def of_dense_solve(matrix: np.ndarray) -> float:
    return rounding(torch.float64, len(matrix), float(np.linalg.cond(matrix)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("size", SIZES)
def test_gram_solve_agrees_with_dense_algebra(
    size: tuple[int, int], dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 1, *size, dtype=torch.float64, generator=generator)
    b = torch.randn(1, 3, 3, dtype=torch.float64, generator=generator)
    h, alpha = 0.7, 3.0
    B = dense_periodic(b[0].numpy(), size)
    expected = torch.from_numpy(solve_dense(x.numpy(), alpha * B.T @ B, h))
    y = solve_symbol(x.to(dtype), alpha * gram_symbol(b.to(dtype), size), h)
    assert y.dtype == dtype
    tolerance = of_solve(y, sensitivity(b, h * alpha))
    tolerance += of_dense_solve(np.eye(len(B)) + h * alpha * B.T @ B)
    assert relative_error(y, expected) <= tolerance


@pytest.mark.parametrize("size", SIZES)
def test_laplacian_solve_agrees_with_dense_algebra(size: tuple[int, int]) -> None:
    x = torch.randn(3, 1, *size, dtype=torch.float64)
    taps = laplacian().double()
    L = dense_periodic(taps.numpy(), size)
    expected = torch.from_numpy(solve_dense(x.numpy(), L, 5.0))
    y = solve_symbol(x, even_symbol(taps[None], size), 5.0)
    # d t / t = h t d lambda <= h d lambda
    tolerance = of_solve(x, 5.0 * float(taps.abs().sum()))
    assert relative_error(y, expected) <= tolerance + of_dense_solve(
        np.eye(len(L)) + 5.0 * L
    )


@pytest.mark.parametrize("size", [(4, 4), (5, 3), (3, 6)])
def test_gradients_of_image_stencil_step_and_alpha(size: tuple[int, int]) -> None:
    x = torch.randn(2, 2, *size, dtype=torch.float64, requires_grad=True)
    b = torch.rand(2, 3, 3, dtype=torch.float64, requires_grad=True)
    h = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    alpha = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)

    def solve(x: Tensor, b: Tensor, h: Tensor, alpha: Tensor) -> Tensor:
        return solve_symbol(x, alpha * gram_symbol(zero_mean(b), size), h)

    assert gradcheck(solve, (x, b, h, alpha))
    assert gradgradcheck(solve, (x, b, h, alpha))


def test_gradient_of_h_is_finite_at_zero() -> None:
    x = torch.randn(1, 1, 4, 4, dtype=torch.float64)
    h = torch.zeros((), dtype=torch.float64, requires_grad=True)
    symbol = even_symbol(laplacian().double()[None], (4, 4))
    weight = torch.randn_like(x)
    (weight * solve_symbol(x, symbol, h)).sum().backward()
    # At h = 0 the solve is I - h L + O(h^2).
    torch.testing.assert_close(-h.grad, (weight * symbol_product(x, symbol)).sum())


def random_problem(seed: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    options = {"dtype": torch.float64, "generator": generator}
    x, z = torch.randn(2, 2, 3, height, width, **options)
    return x, z, zero_mean(torch.rand(3, 3, 3, **options))


problems = st.builds(
    random_problem, st.integers(0, 2**31), st.integers(3, 12), st.integers(3, 12)
)
steps = st.floats(0, 1e4)


@settings(deadline=None)
@given(problems, steps)
def test_solve_is_symmetric_contractive_and_keeps_means(
    problem: tuple[Tensor, Tensor, Tensor], h: float
) -> None:
    x, z, b = problem
    symbol = gram_symbol(b, tuple(x.shape[-2:]))
    Sx, Sz = solve_symbol(x, symbol, h), solve_symbol(z, symbol, h)
    # Both sides have the same factors, and t(0) = 1 up to the square of a rounding.
    allowed = of_solve(x)
    gap = float(((Sx * z).sum() - (x * Sz).sum()).abs())
    assert gap <= 2 * allowed * float(x.norm() * z.norm())
    assert Sx.norm() <= x.norm() * (1 + allowed)
    means = Sx.mean((-2, -1)) - x.mean((-2, -1))
    assert float(means.abs().max()) <= allowed * float(x.abs().max())


@settings(deadline=None)
@given(problems)
def test_zero_step_is_the_identity(problem: tuple[Tensor, Tensor, Tensor]) -> None:
    x, _, b = problem
    y = solve_symbol(x, gram_symbol(b, tuple(x.shape[-2:])), 0.0)
    assert relative_error(y, x) <= of_solve(x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_solved_in_float32(dtype: torch.dtype) -> None:
    x = torch.randn(2, 3, 16, 16)
    symbol = gram_symbol(torch.rand(3, 3, 3), (16, 16))
    exact = solve_symbol(x.to(dtype).float(), symbol, 1.0)
    y = solve_symbol(x.to(dtype), symbol, 1.0)
    assert y.dtype == dtype
    torch.testing.assert_close(y, exact.to(dtype))


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "backend", ["fft", "gemm", pytest.param("fused", marks=needs_kernels)]
)
def test_autocast_does_not_touch_the_solve_nor_its_gradients(
    backend: str, half: torch.dtype
) -> None:
    """For the image also where the backward pass is run inside of autocast."""
    x = torch.randn(2, 3, 16, 16)
    b = torch.rand(3, 3, 3)
    results = []
    for enabled in (False, True):
        inputs = x.clone().requires_grad_(), b.clone().requires_grad_()
        with torch.autocast("cpu", half, enabled=enabled):
            symbol = gram_symbol(inputs[1], (16, 16))
            y = solve_symbol(inputs[0], symbol, 1.0, backend=backend)
            loss = y.square().sum()
            inside = torch.autograd.grad(loss, inputs[0], retain_graph=True)
        gradients = *inside, *torch.autograd.grad(loss, inputs)
        assert y.dtype == torch.float32
        results.append([y, *gradients])
    for exact, cast in zip(*results, strict=True):
        assert relative_error(cast, exact) <= of_solve(x, sensitivity(b, 1))


def test_autocast_does_not_touch_the_symbol() -> None:
    b = torch.rand(3, 3, 3)
    exact = gram_symbol(b, (16, 16))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(gram_symbol(b, (16, 16)), exact, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("boundary", "backend"),
    [
        *product(["periodic", "neumann", "dirichlet"], ["fft", "gemm"]),
        pytest.param("periodic", "fused", marks=needs_kernels),
    ],
)
def test_layout_of_the_image_does_not_matter(boundary: str, backend: str) -> None:
    x = torch.randn(2, 3, 8, 10)
    symbol = gram_symbol(torch.rand(3, 3, 3), (8, 10), boundary)
    expected, last, strided = (
        solve_symbol(image, symbol, 1.0, boundary, backend)
        for image in (
            x,
            x.to(memory_format=torch.channels_last),
            torch.cat([x, x], dim=-1)[..., :10],
        )
    )
    assert relative_error(last, expected) <= of_solve(x)
    assert relative_error(strided, expected) <= of_solve(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize(
    "backend", ["fft", "gemm", pytest.param("fused", marks=needs_kernels)]
)
def test_memory_format_of_the_image_is_kept(
    backend: str, grad: bool, dtype: torch.dtype
) -> None:
    x = torch.randn(2, 3, 8, 10, dtype=dtype, requires_grad=grad)
    symbol = gram_symbol(torch.rand(3, 3, 3), (8, 10))
    for layout in (torch.contiguous_format, torch.channels_last):
        image = x.contiguous(memory_format=layout)
        y = solve_symbol(image, symbol, 1.0, backend=backend)
        assert y.stride() == image.stride()


@pytest.mark.parametrize(
    "x",
    [torch.ones(1, 1, 4, 4, dtype=torch.long), torch.ones(4, 4), torch.ones(1, 4, 4)],
)
def test_images_of_another_kind_are_refused(x: Tensor) -> None:
    with pytest.raises(ValueError, match="images must be floating point"):
        symbol_product(x, torch.ones(1, 4, 3))


@pytest.mark.parametrize(
    "backend", ["auto", "fft", "gemm", pytest.param("fused", marks=needs_kernels)]
)
def test_each_image_has_its_own_gradients(backend: str) -> None:
    """By torch.func, which maps over images and derives torch's own operations."""
    x, g = torch.randn(2, 3, 2, 8, 12, dtype=torch.float64)
    b = torch.rand(2, 3, 3, dtype=torch.float64)

    def loss(x: Tensor, b: Tensor, g: Tensor) -> Tensor:
        y = solve_symbol(x[None], gram_symbol(b, (8, 12)), 2.0, backend=backend)
        return (y.pow(2) * g).sum()

    together = torch.func.vmap(torch.func.grad(loss, (0, 1)), (0, None, 0))(x, b, g)
    for i in range(3):
        inputs = x[i].clone().requires_grad_(), b.clone().requires_grad_()
        alone = torch.autograd.grad(loss(*inputs, g[i]), inputs)
        torch.testing.assert_close([one[i] for one in together], list(alone))
