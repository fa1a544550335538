"""The symbols, against the discrete Fourier transform of the stencil laid on the torus."""

import numpy as np
import pytest
import torch
from conftest import rounding
from hypothesis import given
from hypothesis import strategies as st

from imex_experiments.operators.stencils import (
    even_symbol,
    gram_symbol,
    laplacian,
    zero_mean,
)

SIZES = [(8, 8), (7, 9), (6, 11), (5, 4), (3, 3), (2, 1)]


def on_torus(taps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The stencil as the kernel of a periodic convolution, centre at (0, 0)."""
    kernel = np.zeros(size)
    kh, kw = taps.shape
    for i in range(kh):
        for j in range(kw):
            kernel[(i - kh // 2) % size[0], (j - kw // 2) % size[1]] += taps[i, j]
    return kernel


@pytest.mark.parametrize("size", SIZES)
def test_gram_symbol_is_the_squared_modulus_of_the_transform(
    size: tuple[int, int],
) -> None:
    taps = torch.randn(4, 3, 3, dtype=torch.float64)
    expected = [np.abs(np.fft.rfft2(on_torus(b, size))) ** 2 for b in taps.numpy()]
    # |B^|^2 is a sum of 9 x 9 products, at most the square of sum |b|.
    atol = rounding(torch.float64, 18, float(taps.abs().sum((1, 2)).max()) ** 2)
    symbol = gram_symbol(taps, size).numpy()
    np.testing.assert_allclose(symbol, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("size", SIZES)
def test_even_symbol_is_the_transform_of_a_symmetric_stencil(
    size: tuple[int, int],
) -> None:
    taps = laplacian().double()
    expected = np.fft.rfft2(on_torus(taps.numpy(), size))
    atol = rounding(torch.float64, 9, float(taps.abs().sum()))
    assert np.abs(expected.imag).max() <= atol  # the problem: the symbol is real
    symbol = even_symbol(taps[None], size)[0].numpy()
    np.testing.assert_allclose(symbol, expected.real, rtol=0, atol=atol)


def test_laplacian_is_second_order_consistent_on_a_cosine() -> None:
    """Eq. 7 applied to cos(k x) approaches k^2 cos(k x) with the square of the mesh size."""
    errors = []
    for n in (32, 64):
        symbol = even_symbol(laplacian().double()[None], (n, n))[0, 1, 0]
        errors.append(abs(float(symbol) * (n / (2 * np.pi)) ** 2 - 1))
    assert errors[0] < 0.01
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.05)


def test_larger_laplacian_is_the_same_operator() -> None:
    small, large = (even_symbol(laplacian(k)[None], (9, 8)) for k in (3, 5))
    torch.testing.assert_close(small, large)


@given(st.integers(1, 4), st.sampled_from([1, 3, 5]), st.integers(0, 2**31))
def test_zero_mean_stencils_annihilate_constants(
    channels: int, k: int, seed: int
) -> None:
    taps = torch.rand(
        channels,
        k,
        k,
        dtype=torch.float64,
        generator=torch.Generator().manual_seed(seed),
    )
    # The square of a sum of k^2 taps, each of them at most 1 and rounded once more.
    sums = rounding(torch.float64, 2 * k**2, k**2)
    assert gram_symbol(zero_mean(taps), (8, 7))[:, 0, 0].abs().max() <= sums**2


@pytest.mark.parametrize(
    ("taps", "size", "complaint"),
    [
        (torch.ones(1, 2, 3), (8, 8), "odd"),
        (torch.ones(1, 3, 3), (8, 0), "images must have pixels, got size"),
        (torch.ones(3, 3), (8, 8), "taps must be"),
        (torch.ones(1, 3, 3, dtype=torch.long), (8, 8), "int64"),
    ],
)
def test_unsound_stencils_are_refused(
    taps: torch.Tensor, size: tuple[int, int], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        gram_symbol(taps, size)
