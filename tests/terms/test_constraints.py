"""Constraints hold whatever the optimizer does, and weights still get gradients."""

import pytest
import torch

from imex_experiments.terms import Bounded, DoubleLayer, SpectralNorm
from imex_experiments.terms.constraints import constrain


def trained(layer: DoubleLayer) -> DoubleLayer:
    """A few large steps in a direction that grows the weights."""
    optimizer = torch.optim.SGD(layer.parameters(), lr=10.0)
    for _ in range(5):
        optimizer.zero_grad()
        (-layer(torch.randn(4, 3, 6, 6)).square().mean()).backward()
        assert all(p.grad.abs().max() > 0 for p in layer.parameters())
        optimizer.step()
    return layer


def test_bounded_weights_stay_in_their_box() -> None:
    torch.manual_seed(0)
    layer = DoubleLayer(3, norm="none", activation="tanh")
    before = layer.K1.weight.detach().clone()
    constrain(layer, lambda: Bounded(0.2))
    inside = before.abs() < 0.19
    torch.testing.assert_close(layer.K1.weight[inside], before[inside])
    trained(layer)
    for K in (layer.K1, layer.K2):
        assert 0.19 < K.weight.abs().max() <= 0.2


def test_spectral_norm_fixes_the_largest_singular_value() -> None:
    torch.manual_seed(0)
    layer = DoubleLayer(3, norm="none", activation="tanh")
    constrain(layer, lambda: SpectralNorm(0.7))
    trained(layer)
    for K in (layer.K1, layer.K2):
        sigma = torch.linalg.svdvals(K.weight.flatten(1))
        torch.testing.assert_close(sigma[0], torch.tensor(0.7))


@pytest.mark.parametrize("make", [Bounded, SpectralNorm])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_unsound_bounds_are_refused(make: type, value: float) -> None:
    with pytest.raises(ValueError, match="must be > 0 and finite, got"):
        make(value)
