"""Neumann and Dirichlet solves, against matrices made of torch's own padded convolution."""

from itertools import product

import numpy as np
import pytest
import scipy.linalg
import torch
from conftest import needs_kernels, relative_error, rounding, sensitivity
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from imex_experiments.operators import implicit_conv as implicit_conv_module
from imex_experiments.operators.boundary import (
    BOUNDARIES,
    PADDINGS,
    convolve,
    convolve_adjoint,
)
from imex_experiments.operators.implicit_conv import solve_symbol, symbol_product
from imex_experiments.operators.select import choose
from imex_experiments.operators.stencils import (
    even_symbol,
    gram_symbol,
    laplacian,
    zero_mean,
)

MODES = {"periodic": "circular", "neumann": "replicate", "dirichlet": "constant"}
SIZES = [(6, 6), (7, 5), (5, 8)]
BACKENDS = ["fft", "gemm"]
SOLVES = [
    *((boundary, backend) for boundary in BOUNDARIES for backend in BACKENDS),
    pytest.param("periodic", "fused", marks=needs_kernels),
]


def dense(taps: Tensor, size: tuple[int, int], boundary: str) -> np.ndarray:
    """The matrix of a padded convolution, one unit image after the other."""
    units = torch.eye(size[0] * size[1], dtype=torch.float64).view(-1, 1, *size)
    padded = F.pad(units, [1] * 4, mode=MODES[boundary])
    return F.conv2d(padded, taps[None, None]).flatten(1).T.numpy()


def symmetric_in_both_axes(taps: Tensor) -> Tensor:
    taps = (taps + taps.flip(-1)) / 2
    return (taps + taps.flip(-2)) / 2


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("boundary", "backend"), SOLVES)
def test_gram_solve_agrees_with_dense_algebra(
    boundary: str, size: tuple[int, int], backend: str
) -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(3, 1, *size, dtype=torch.float64, generator=generator)
    b = torch.randn(1, 3, 3, dtype=torch.float64, generator=generator)
    seen = b[0] if boundary == "periodic" else symmetric_in_both_axes(b[0])
    B = dense(seen, size, boundary)
    h, alpha = 0.7, 3.0
    matrix = np.eye(len(B)) + h * alpha * B.T @ B
    expected = scipy.linalg.solve(matrix, x.flatten(1).T)
    y = solve_symbol(x, alpha * gram_symbol(b, size, boundary), h, boundary, backend)
    found = y.flatten(1).T.numpy()
    np.testing.assert_allclose(found, expected, atol=of_two_solves(matrix, x), rtol=0)


def of_two_solves(matrix: np.ndarray, x: Tensor) -> float:
    """Bound the difference of two float64 solves: sums over all pixels, condition 1e3."""
    condition = float(np.linalg.cond(matrix))
    assert condition < 1e3
    return rounding(torch.float64, len(matrix), condition) * float(x.abs().max())


def shift(offset: int, n: int, boundary: str) -> np.ndarray:
    """The matrix of x(i + offset) along an axis, x continued beyond its n pixels.

    Periodic: around; neumann: even about the edge; dirichlet: odd about the zero beyond it.
    """
    matrix = np.zeros((n, n))
    for i in range(n):
        j, sign = (i + offset) % n, 1
        if boundary == "neumann":
            j = (i + offset) % (2 * n)
            j = min(j, 2 * n - 1 - j)
        elif boundary == "dirichlet":
            j = (i + offset + 1) % (2 * n + 2)
            j, sign = min(j, 2 * n + 2 - j) - 1, 1 if j <= n + 1 else -1
            if j in (-1, n):
                continue
        matrix[i, j] = sign
    return matrix


@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize(("boundary", "backend"), SOLVES)
def test_stencils_fold_on_images_of_every_small_size(
    boundary: str, backend: str, kernel_size: int
) -> None:
    generator = np.random.default_rng(kernel_size)
    b = generator.standard_normal((kernel_size, kernel_size)) / kernel_size
    if boundary != "periodic":
        b = symmetric_in_both_axes(torch.from_numpy(b)).numpy()
    offsets = range(-(kernel_size // 2), kernel_size // 2 + 1)
    for size in product(range(1, 8), range(1, 8)):
        x = torch.from_numpy(generator.standard_normal((2, 1, *size)))
        rows, columns = ([shift(d, n, boundary) for d in offsets] for n in size)
        B = sum(b[p, q] * np.kron(rows[p], columns[q]) for p, q in np.ndindex(b.shape))
        matrix = np.eye(len(B)) + 2.1 * B.T @ B
        expected = scipy.linalg.solve(matrix, x.flatten(1).T).T.reshape(x.shape)
        symbol = gram_symbol(torch.from_numpy(b)[None], size, boundary)
        y = solve_symbol(x, symbol, 2.1, boundary, backend)
        atol = of_two_solves(matrix, x)
        np.testing.assert_allclose(y.numpy(), expected, atol=atol, rtol=0)


@pytest.mark.parametrize(("boundary", "backend"), SOLVES)
def test_product_with_the_laplacian_is_the_padded_convolution(
    boundary: str, backend: str
) -> None:
    taps = laplacian().double()
    x = torch.randn(2, 3, 9, 6, dtype=torch.float64)
    symbol = even_symbol(taps[None], (9, 6), boundary)
    expected = convolve(
        x, taps.expand(3, 3, 3, 3) * torch.eye(3)[..., None, None], boundary
    )
    y = symbol_product(x, symbol, boundary, backend)
    atol = rounding(torch.float64, 2 * (9 + 6) + 9, float(taps.abs().sum()))
    torch.testing.assert_close(y, expected, rtol=0, atol=atol * float(x.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("size", [(64, 64), (37, 30), (17, 96)])
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_backends_agree_in_values_and_gradients(
    boundary: str, size: tuple[int, int], dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(0)
    x, g = torch.randn(2, 2, 3, *size, dtype=torch.float64, generator=generator).to(
        dtype
    )
    b = torch.rand(3, 3, 3, dtype=torch.float64, generator=generator).to(dtype)
    results = []
    for backend in BACKENDS:
        inputs = x.clone().requires_grad_(), b.clone().requires_grad_()
        symbol = gram_symbol(zero_mean(inputs[1]), size, boundary)
        y = solve_symbol(inputs[0], symbol, 10.0, boundary, backend)
        results.append([y, *torch.autograd.grad(y, inputs, g)])
    length = 2 * sum(size)
    allowed = rounding(dtype, length) + rounding(dtype, 9, sensitivity(b, 10.0))
    for one, other in list(zip(*results, strict=True))[:2]:
        assert relative_error(one, other) <= allowed
    # A tap's is sum X G d t, d t = 2 h |B^| t^2 <= sqrt(h), of two spectra.
    taps = float((results[0][2] - results[1][2]).abs().max())
    assert taps <= 2 * allowed * 10**0.5 * float(x.norm() * g.norm())


@pytest.mark.parametrize("size", [(4, 4), (5, 3)])
@pytest.mark.parametrize(("boundary", "backend"), SOLVES)
def test_first_and_second_derivatives(
    boundary: str, backend: str, size: tuple[int, int]
) -> None:
    x = torch.randn(2, 2, *size, dtype=torch.float64, requires_grad=True)
    b = torch.rand(2, 3, 3, dtype=torch.float64, requires_grad=True)
    h = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)

    def solve(x: Tensor, b: Tensor, h: Tensor) -> Tensor:
        return solve_symbol(x, gram_symbol(b, size, boundary), h, boundary, backend)

    assert gradcheck(solve, (x, b, h))
    assert gradgradcheck(solve, (x, b, h))


@pytest.mark.parametrize("backend", BACKENDS)
def test_third_derivative_in_the_image_and_the_symbol(backend: str) -> None:
    """Of sum (S x)^3 along a line in (x, t), against that of the symbolic product."""
    torch.manual_seed(0)
    x, dx = torch.randn(2, 1, 1, 4, 5, dtype=torch.float64)
    t, dt = torch.rand(2, 1, 4, 3, dtype=torch.float64)
    # Real even symbols: mirrored on the columns that are their own conjugates.
    t, dt = ((s + s.flip(-2).roll(1, -2)) / 2 for s in (t, dt))

    def along(e: Tensor, product: str) -> Tensor:
        return symbol_product(x + e * dx, t + e * dt, backend=product).pow(3).sum()

    def derivatives(product: str) -> list[float]:
        e = torch.zeros((), dtype=torch.float64, requires_grad=True)
        values, y = [], along(e, product)
        for _ in range(3):
            (y,) = torch.autograd.grad(y, e, create_graph=True)
            values.append(y.item())
        return values

    points = torch.linspace(-3, 3, 7, dtype=torch.float64)
    samples = [float(along(p, "fft")) for p in points]
    # A polynomial of degree 6 in e: seven samples determine it.
    taylor = np.polynomial.Polynomial.fit(points.numpy(), samples, 6).convert().coef
    expected = taylor[1:4] * [1, 2, 6]
    # Samples are cubes of sums; the fit is a solve with the matrix of their powers.
    condition = float(np.linalg.cond(np.vander(points.numpy() / 3, 7)))
    atol = rounding(torch.float64, 3 * 2 * (4 + 5), condition) * max(map(abs, samples))
    np.testing.assert_allclose(derivatives(backend), expected, rtol=0, atol=6 * atol)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_impulse_at_one_edge_reaches_the_opposite_one_only_where_periodic(
    backend: str,
) -> None:
    """h L of eq. 7: waves decay by half within a pixel or two, unless they go around."""
    x = torch.zeros(1, 1, 64, 64, dtype=torch.float64)
    x[..., 32, 0] = 1
    seen = {}
    for boundary in BOUNDARIES:
        symbol = even_symbol(laplacian().double()[None], (64, 64), boundary)
        y = solve_symbol(x, symbol, 10.0, boundary, backend)
        seen[boundary] = float(y[..., :, -1].abs().max())
    assert seen["periodic"] > 1e-2
    assert seen["neumann"] < 1e-8
    assert seen["dirichlet"] < 1e-8


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_adjoint_convolution_is_the_adjoint(padding: str, kernel_size: int) -> None:
    K = torch.randn(3, 2, kernel_size, kernel_size, dtype=torch.float64)
    x = torch.randn(2, 2, 7, 6, dtype=torch.float64)
    y = torch.randn(2, 3, 7, 6, dtype=torch.float64)
    forward = (convolve(x, K, padding) * y).sum()
    backward = (x * convolve_adjoint(y, K, padding)).sum()
    torch.testing.assert_close(forward, backward)


@pytest.mark.parametrize(
    ("boundary", "backend", "complaint"),
    [
        ("reflect", "auto", "got 'reflect'; reflect is not offered"),
        ("torus", "auto", "boundary must be one of periodic, neumann, dirichlet, got"),
        ("periodic", "dct", "backend must be one of auto, fft, gemm, fused, got 'dct'"),
    ],
)
def test_unknown_names_are_refused(boundary: str, backend: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        symbol_product(torch.ones(1, 1, 4, 4), torch.ones(1, 4, 3), boundary, backend)


def test_symbol_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 4, 4\) does not fit \(2, 4, 3\)"):
        symbol_product(torch.ones(1, 2, 4, 4), torch.ones(2, 4, 4))


@pytest.mark.parametrize(
    ("size", "entry"),
    [((4, 4), (1, 0)), ((4, 4), (3, 2)), ((3, 5), (1, 0)), ((5, 2), (4, 1))],
)
def test_symbols_that_are_not_even_are_refused(
    size: tuple[int, int], entry: tuple[int, int]
) -> None:
    """Half a spectrum holds k and -k on the first column, and on an even width's last."""
    x, symbol = torch.ones(1, 2, *size), torch.ones(2, size[0], size[1] // 2 + 1)
    symbol_product(x, symbol)
    symbol[1, *entry] += 0.01
    with pytest.raises(
        ValueError, match=r"must be even, t\(-k\) = t\(k\); .* by 1.0e-02"
    ):
        symbol_product(x, symbol)
    symbol_product(x, symbol.new_ones(2, 1, 1))  # the same for all waves


def test_stencils_that_are_not_finite_are_refused() -> None:
    taps = torch.ones(2, 3, 3)
    taps[1, 0, 2] = torch.nan
    with pytest.raises(ValueError, match=r"finite, got nan among \(2, 3, 3\)"):
        gram_symbol(taps, (8, 8))


@pytest.mark.parametrize(
    ("boundary", "size", "backend"),
    [
        ("periodic", (64, 64), "Fft"),
        ("periodic", (67, 64), "Gemm"),
        ("periodic", (521, 521), "Fft"),
        ("neumann", (64, 64), "Gemm"),
        ("dirichlet", (768, 768), "Fft"),
    ],
)
def test_auto_takes_what_was_measured_to_be_faster(
    boundary: str, size: tuple[int, int], backend: str
) -> None:
    assert type(choose(size, boundary)).__name__ == boundary.capitalize() + backend


@pytest.mark.parametrize("planes", [1, 2, 3, 7])
@pytest.mark.parametrize("batch", [5, 6])
@pytest.mark.parametrize("backend", BACKENDS)
def test_blocks_of_any_size_give_the_same(
    backend: str, batch: int, planes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One plane at a time, parts of a batch, several channels, and a rest."""
    x, g = torch.randn(2, batch, 3, 6, 7, dtype=torch.float64)
    symbol = torch.rand(3, 6, 4, dtype=torch.float64)
    symbol = (symbol + symbol.flip(-2).roll(1, -2)) / 2
    results = []
    for block in (2**20, planes * 6 * 7 * 8):
        monkeypatch.setattr(implicit_conv_module, "BLOCK_BYTES", block)
        inputs = x.clone().requires_grad_(), symbol.clone().requires_grad_()
        y = symbol_product(*inputs, backend=backend)
        with torch.no_grad():
            plain = symbol_product(x, symbol, backend=backend)
        results.append([y, plain, *torch.autograd.grad(y, inputs, g)])
    for whole, parts in zip(*results, strict=True):
        allowed = rounding(torch.float64, 2 * (6 + 7) + batch)
        assert relative_error(parts, whole) <= allowed
