"""Layers: adjoints, the sign of the symmetric Jacobian, and padding."""

import pytest
import torch
from conftest import rounding
from torch import nn

from imex_experiments.terms.layers import (
    ContextLayer,
    Convolution,
    DepthwiseLayer,
    DoubleLayer,
    ReleasedLayer,
    SkewSymmetricLayer,
    SymmetricLayer,
)
from imex_experiments.terms.norms import TvNorm, make_activation, make_norm


@pytest.mark.parametrize("padding", ["zeros", "periodic"])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_adjoint_of_a_convolution(kernel_size: int, padding: str) -> None:
    """<K y, z> = <y, K^T z>."""
    K = Convolution(3, 5, kernel_size, padding).double()
    y = torch.randn(2, 3, 7, 6, dtype=torch.float64)
    z = torch.randn(2, 5, 7, 6, dtype=torch.float64)
    torch.testing.assert_close((K(y) * z).sum(), (y * K.adjoint(z)).sum())


def test_periodic_padding_commutes_with_shifts_and_zero_padding_does_not() -> None:
    y = torch.randn(1, 2, 6, 6)
    periodic, zeros = Convolution(2, 2, 3, "periodic"), Convolution(2, 2, 3, "zeros")

    def commutes(K: nn.Module) -> bool:
        shifted = torch.roll(y, (2, 3), (-2, -1))
        return torch.allclose(K(shifted), torch.roll(K(y), (2, 3), (-2, -1)), atol=1e-5)

    assert commutes(periodic)
    assert not commutes(zeros)


@pytest.mark.parametrize(("layer", "sign"), [(SymmetricLayer, -1), (ReleasedLayer, 1)])
@pytest.mark.parametrize("padding", ["zeros", "periodic"])
@pytest.mark.parametrize("bias", [False, True])
def test_symmetric_layer_has_a_semi_definite_jacobian(
    layer: type[SymmetricLayer], sign: int, padding: str, bias: bool
) -> None:
    """Theorem 1 needs -K^T D K with D >= 0: symmetric, no positive eigenvalue."""
    torch.manual_seed(0)
    f = layer(2, padding=padding, activation="tanh", bias=bias).double().eval()
    if bias:
        nn.init.normal_(f.bias)
        nn.init.normal_(f.K.bias)
    y = torch.randn(1, 2, 4, 5, dtype=torch.float64)
    J = torch.autograd.functional.jacobian(f, y).reshape(40, 40)
    torch.testing.assert_close(J, J.T)
    eigenvalues = sign * torch.linalg.eigvalsh(J)
    assert eigenvalues.min() >= -rounding(torch.float64, 40, float(eigenvalues.max()))
    assert eigenvalues.max() > 1e-3


@pytest.mark.parametrize("padding", ["zeros", "periodic"])
@pytest.mark.parametrize("gamma", [0.0, 0.3])
def test_skew_symmetric_layer_rotates_and_damps(padding: str, gamma: float) -> None:
    """Eq. 8 with sigma = 1: the Jacobian is skew minus gamma I, eigenvalues on one line."""
    f = SkewSymmetricLayer(2, padding=padding, activation="none", gamma=gamma).double()
    y = torch.randn(1, 2, 4, 5, dtype=torch.float64)
    J = torch.autograd.functional.jacobian(f, y).reshape(40, 40)
    torch.testing.assert_close(J + J.T, -2 * gamma * torch.eye(40).double())
    assert J.abs().max() > 0.1
    torch.testing.assert_close(f(0 * y), f.bias.expand_as(y))
    with pytest.raises(ValueError, match="gamma must be >= 0 and finite, got -1"):
        SkewSymmetricLayer(2, gamma=-1.0)


def test_tv_norm_gives_every_pixel_length_one_and_a_shift() -> None:
    norm, y = TvNorm(3, eps=0.0), torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(norm(y).square().sum(1), torch.ones(2, 4, 5))
    torch.testing.assert_close(norm(7 * y), norm(y))
    nn.init.constant_(norm.bias, 2.0)
    torch.testing.assert_close((norm(y) - 2).square().sum(1), torch.ones(2, 4, 5))
    assert torch.isfinite(TvNorm(3)(0 * y)).all()


def test_sizes_of_the_layers() -> None:
    def weights(layer: nn.Module) -> int:
        return sum(p.numel() for p in layer.parameters() if p.ndim == 4)

    assert weights(DoubleLayer(8)) == 2 * 9 * 64
    assert weights(DoubleLayer(8, dilation=4)) == 2 * 9 * 64
    assert weights(ContextLayer(8)) == (2 * 9 + 1) * 64
    assert weights(DepthwiseLayer(8, 13, expansion=2)) == 13**2 * 8 + 2 * 2 * 64
    assert weights(SymmetricLayer(8)) == 9 * 64


def test_biases_of_the_symmetric_layer() -> None:
    """-K^T sigma(K Y + b) + c; at Y = 0 it is c - K^T sigma(b)."""
    f = SymmetricLayer(2, norm="none", activation="tanh", bias=True)
    b, c = torch.randn(2, 1, 1), torch.randn(2, 1, 1)
    f.K.bias.data, f.bias.data = b, c
    y = torch.zeros(1, 2, 6, 6)
    torch.testing.assert_close(f(y), c - f.K.adjoint(b.tanh() + y))


@pytest.mark.parametrize(
    ("layer", "reach"),
    [
        (DoubleLayer(1, norm="none", activation="none"), 2),
        (DoubleLayer(1, norm="none", activation="none", dilation=5), 10),
        (DepthwiseLayer(1, 13, norm="none", activation="none"), 6),
        (ContextLayer(1, norm="none", activation="none"), 20),
    ],
)
@pytest.mark.parametrize("padding", ["zeros", "periodic", "neumann"])
def test_how_far_a_layer_sees(layer: nn.Module, reach: int, padding: str) -> None:
    """The pixels on which the middle one of a 41 x 41 image depends; context: all."""
    for part in layer.modules():
        if isinstance(part, Convolution):
            part.padding = padding
    y = torch.randn(1, 1, 41, 41, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(y)[0, 0, 20, 20], y)
    rows = gradient[0, 0].abs().amax(1).nonzero().flatten()
    assert (int(rows[0]), int(rows[-1])) == (20 - reach, 20 + reach)


def test_depthwise_kernels_leave_the_other_channels_alone() -> None:
    D = DepthwiseLayer(3, 5).D
    y = torch.randn(1, 3, 8, 8)
    changed = D(y + torch.tensor([1.0, 0, 0])[:, None, None]) - D(y)
    assert changed[:, 0].abs().max() > 0.01
    torch.testing.assert_close(changed[:, 1:], torch.zeros(1, 2, 8, 8))


def test_unknown_names_are_told_with_the_choices() -> None:
    with pytest.raises(
        ValueError, match="batch, instance, group, tv, none, got 'bacth'"
    ):
        make_norm("bacth", 4)
    with pytest.raises(ValueError, match="relu"):
        make_activation("rleu")
    with pytest.raises(ValueError, match="zeros"):
        DoubleLayer(4, padding="reflect")
    with pytest.raises(ValueError, match="kernel_size must be odd and >= 1, got 4"):
        DoubleLayer(4, kernel_size=4)
    with pytest.raises(ValueError, match="dilation must be >= 1, got 0"):
        DoubleLayer(4, dilation=0)
    with pytest.raises(ValueError, match="expansion must be >= 1, got 0"):
        DepthwiseLayer(4, expansion=0)


def test_image_smaller_than_the_kernel_is_refused_with_both_sizes() -> None:
    with pytest.raises(
        ValueError, match=r"\(4, 9\) is smaller than the kernel \(5, 5\)"
    ):
        DoubleLayer(1, kernel_size=5)(torch.zeros(1, 1, 4, 9))
    with pytest.raises(ValueError, match=r"smaller than the kernel \(17, 17\)"):
        DoubleLayer(1, dilation=8)(torch.zeros(1, 1, 16, 20))
