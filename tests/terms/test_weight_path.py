"""Which weights are in force when."""

import copy

import pytest
import torch
from conftest import rounding
from torch import Tensor, nn

from imex_experiments.terms.layers import DoubleLayer
from imex_experiments.terms.weight_path import LinearPath, StepwisePath, WeightPath

KNOTS = (0.0, 0.5, 2.0, 2.25)

OF_A_LAYER = rounding(torch.float64, 4 * (2 * 9 + 2), 10)
"""Error of means of weights in a layer: two kernels of 9 taps over 2 channels, two norms
that make ten times as much of it at most."""


def make_layer() -> nn.Module:
    return DoubleLayer(2, norm="tv", activation="tanh").double()


def image() -> Tensor:
    return torch.randn(2, 2, 5, 5, dtype=torch.float64)


def test_stepwise_path_holds_its_weights_over_each_step() -> None:
    path = StepwisePath(lambda: nn.Linear(1, 1), KNOTS)
    assert len(path) == 3
    for t, k in [(0.0, 0), (0.49, 0), (0.5, 1), (1.99, 1), (2.0, 2), (2.25, 2)]:
        assert path.at(t) is path[k]


def test_a_step_that_ends_at_a_knot_does_not_see_the_next_module() -> None:
    path = StepwisePath(lambda: nn.Linear(1, 1), KNOTS)
    assert path.at(0.5, end=0.5) is path[0]
    assert path.at(0.5, end=2.0) is path[1]
    assert path.at(2.0, end=2.0) is path[1]


@pytest.mark.parametrize("kind", [StepwisePath, LinearPath])
@pytest.mark.parametrize("t", [-0.1, 2.3, float("nan")])
def test_times_outside_of_the_knots_are_refused(
    kind: type[WeightPath], t: float
) -> None:
    with pytest.raises(ValueError, match="must lie in"):
        kind(lambda: nn.Linear(1, 1), KNOTS).at(t)


@pytest.mark.parametrize("knots", [(0.0,), (0.0, 0.0), (1.0, 0.5)])
def test_unsound_knots_are_refused(knots: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="knots must be finite and increasing"):
        LinearPath(lambda: nn.Linear(1, 1), knots)


def test_linear_path_interpolates_every_weight() -> None:
    """At s between two knots it is the layer whose weights are the weighted means."""
    path, y = LinearPath(make_layer, KNOTS), image()
    assert len(path) == 4
    for t, k, s in [(0.125, 0, 0.25), (1.25, 1, 0.5), (2.2, 2, 0.8)]:
        expected = make_layer()
        with torch.no_grad():
            for mean, p, q in zip(
                *(m.parameters() for m in (expected, path[k], path[k + 1])), strict=True
            ):
                mean.copy_((1 - s) * p + s * q)
        torch.testing.assert_close(path.at(t)(y), expected(y), rtol=0, atol=OF_A_LAYER)
    for k, t in enumerate(KNOTS):
        assert torch.equal(path.at(t)(y), path[k](y))
        assert torch.equal(path.at(t, end=t)(y), path[k](y))


def test_equal_knots_interpolate_to_themselves_bit_for_bit() -> None:
    layer, y = make_layer(), image()
    path = LinearPath(lambda: copy.deepcopy(layer), KNOTS)
    for t in (0.1, 0.3, 1.7):
        assert torch.equal(path.at(t)(y), layer(y))


def test_gradients_of_interpolated_weights_equal_finite_differences() -> None:
    torch.manual_seed(0)
    path, y, d = LinearPath(make_layer, KNOTS), image(), 1e-6

    def loss() -> Tensor:
        return path.at(0.8)(y).square().sum()

    value = loss()
    value.backward()
    # A difference of two losses, each with the rounding of its layer and its sum.
    atol = (OF_A_LAYER + rounding(torch.float64, y.numel())) * float(value.detach()) / d
    for knot in (1, 2):
        for weight in path[knot].parameters():
            direction = torch.randn_like(weight)
            with torch.no_grad():
                values = []
                for sign in (1, -1):
                    weight += sign * d * direction
                    values.append(float(loss()))
                    weight -= sign * d * direction
            numeric = (values[0] - values[1]) / (2 * d)
            analytic = float((weight.grad * direction).sum())
            assert analytic == pytest.approx(numeric, rel=d, abs=atol)
    assert all(p.grad is None for k in (0, 3) for p in path[k].parameters())


@pytest.mark.parametrize("kind", [StepwisePath, LinearPath])
def test_refined_path_is_the_same_function_of_time(
    kind: type[StepwisePath] | type[LinearPath],
) -> None:
    path, y = kind(make_layer, KNOTS), image()
    finer = path.refined((0.0, 0.25, 0.5, 1.0, 2.0, 2.1, 2.25))
    assert len(finer) == len(path) + 3
    for t in (0.0, 0.1, 0.3, 0.5, 1.7, 2.0, 2.2, 2.25):
        torch.testing.assert_close(
            finer.at(t)(y), path.at(t)(y), rtol=0, atol=OF_A_LAYER
        )
    weights = {id(p) for p in path.parameters()}
    assert not weights & {id(p) for p in finer.parameters()}


def test_roughness_weighs_by_the_spacing_of_the_knots() -> None:
    path = LinearPath(lambda: nn.Linear(1, 1, bias=False), (0.0, 0.5, 2.5))
    for knot, value in zip(path, (1.0, 3.0, 2.0), strict=True):
        nn.init.constant_(knot.weight, value)
    assert path.roughness().item() == pytest.approx(0.5 * 2**2 + 2.0 * 1**2)
    stepwise = StepwisePath(lambda: nn.Linear(1, 1, bias=False), (0.0, 0.5, 2.5))
    for module, value in zip(stepwise, (1.0, 3.0), strict=True):
        nn.init.constant_(module.weight, value)
    assert stepwise.roughness().item() == pytest.approx(0.5 * 2**2)


def test_a_single_module_has_no_roughness() -> None:
    path = StepwisePath(lambda: nn.Linear(1, 1), (0.0, 1.0))
    assert path.roughness().item() == 0


def test_batch_norm_on_interpolated_weights_is_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match=r"norm=batch: .*interpolated.*use norm=tv"):
        LinearPath(lambda: DoubleLayer(2, norm="batch"), KNOTS)


@pytest.mark.parametrize("norm", ["tv", "group", "instance", "none"])
def test_other_norms_follow_the_interpolation(norm: str) -> None:
    path = LinearPath(lambda: DoubleLayer(2, norm=norm), KNOTS)
    assert path.at(0.7)(torch.randn(3, 2, 5, 5)).shape == (3, 2, 5, 5)
