"""The certified block: a bound from the weights, and a search for a counterexample."""

from functools import partial

import pytest
import torch
from conftest import rounding
from torch import Tensor, nn

from imex_experiments.analysis.certificate import (
    convolution_norm,
    layer_bound,
    step_bound,
)
from imex_experiments.analysis.jacobian import jacobian_operator, spectral_norm
from imex_experiments.analysis.robustness import with_steps_of
from imex_experiments.analysis.stability import minimal_alpha
from imex_experiments.analysis.trajectory import Step, trajectory
from imex_experiments.integrators import ForwardEuler, Imex, Midpoint
from imex_experiments.networks import DynamicNet
from imex_experiments.terms import (
    Bounded,
    DoubleLayer,
    IdentityDiffusion,
    LaplacianDiffusion,
    ReleasedLayer,
    SpectralNorm,
    SymmetricLayer,
)
from imex_experiments.terms.layers import Convolution

BOUND = 0.3
SIDE = 6


def symmetric_step(
    alpha: float, h: float = 1.0, **options: object
) -> tuple[Step, nn.Module]:
    """One step with weights at their bound, which makes |K| large."""
    torch.manual_seed(0)
    layer = partial(SymmetricLayer, norm="none")
    defaults = {
        "diffusion": IdentityDiffusion,
        "integrator": Imex(),
        "layer": layer,
        "padding": "periodic",
        "constraint": partial(Bounded, BOUND),
    }
    network = DynamicNet(2, 2, [2], h=h, alpha=alpha, **(defaults | options))
    network = network.double().eval()
    with torch.no_grad():
        for p in network.blocks[0].parameters():
            p.mul_(10)
    (step,) = trajectory(network, torch.randn(1, 2, SIDE, SIDE).double())
    return step, network.blocks[0].layers[0]


def worst_stretch(func, pairs: int, ascents: int = 8) -> float:  # type: ignore[no-untyped-def]
    """The largest |T x - T y| / |x - y| over random pairs, each then made worse by ascent."""
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for scale in (0.01, 1.0, 100.0):
        shape = (pairs // 3 // (ascents + 1), 2, SIDE, SIDE)
        x = scale * torch.randn(shape, dtype=torch.float64, generator=generator)
        d = torch.randn(shape, dtype=torch.float64, generator=generator)
        for _ in range(ascents + 1):
            x, d = x.detach().requires_grad_(), d.detach().requires_grad_()
            ratio = (func(x + d) - func(x)).flatten(1).norm(dim=1)
            ratio = ratio / d.flatten(1).norm(dim=1)
            worst = max(worst, float(ratio.detach().max()))
            grads = torch.autograd.grad(ratio.sum(), (x, d))
            x, d = (
                v + v.detach().flatten(1).norm(dim=1)[:, None, None, None] * unit(g)
                for v, g in zip((x, d), grads, strict=True)
            )
    return worst


def unit(g: Tensor) -> Tensor:
    return g / g.flatten(1).norm(dim=1).clamp_min(1e-300)[:, None, None, None]


def test_certified_step_has_no_counterexample_in_100_000_pairs() -> None:
    """alpha by Theorem 1 for lambda = -|K|^2, |K| bounded by the bound of the weights."""
    _, f = symmetric_step(0.0)
    alpha = minimal_alpha([-layer_bound(f)], 1.0)
    step, f = symmetric_step(alpha)
    assert step_bound(step, f) == pytest.approx(1)
    # Two convolutions of 2 x 9 terms, of x that is up to 100 times as large as x - y.
    one = 1 + rounding(torch.float64, 2 * 18, 100)
    assert 0.7 < worst_stretch(step, 100_000) <= one


def test_search_finds_the_counterexample_where_there_is_one() -> None:
    """Half of the exact bound of Theorem 1: the same search must see an amplification."""
    step, f = symmetric_step(0.0)
    exact = spectral_norm(jacobian_operator(f.K, step.y)) ** 2
    assert exact <= layer_bound(f)
    short, f = symmetric_step(minimal_alpha([-exact], 1.0) / 2)
    assert step_bound(short, f) > 1
    assert worst_stretch(short, 10_000) > 1.05


def test_bound_of_longer_steps_is_that_of_another_h() -> None:
    step, f = symmetric_step(3.0, h=2.0)
    expected = step_bound(step, f)
    network = DynamicNet(
        2,
        2,
        [2],
        h=1.0,
        alpha=3.0,
        integrator=Imex(),
        layer=partial(SymmetricLayer, norm="none"),
        diffusion=IdentityDiffusion,
    )
    (longer,) = trajectory(with_steps_of(network, 2.0).double(), step.y)
    assert step_bound(longer, f) == pytest.approx(expected)


def test_a_coupling_step_is_certified_in_the_norm_of_its_operator() -> None:
    """L is 0 on constants: h |K|^2 <= 2 is what certifies, in |Y|_A, A = I + hL."""
    constraint = partial(SpectralNorm, 2**0.5 / 3)
    step, f = symmetric_step(20.0, diffusion=LaplacianDiffusion, constraint=constraint)
    assert step_bound(step, f) == pytest.approx(1)
    L = step.system.L(0.0)
    x, y = (torch.randn(2000, 2, SIDE, SIDE).double() for _ in range(2))

    def distance(v: Tensor) -> Tensor:
        return (v * (v + step.h * L(v))).flatten(1).sum(1)

    with torch.no_grad():
        # The sum over a state, and a solve whose matrix is at most 1 + 8 alpha.
        one = 1 + rounding(torch.float64, 2 * SIDE**2, 1 + 8 * 20)
        assert bool((distance(step(x) - step(y)) <= distance(x - y) * one).all())


@pytest.mark.parametrize("padding", ["zeros", "periodic"])
def test_bound_of_a_convolution_is_above_its_norm(padding: str) -> None:
    torch.manual_seed(0)
    for _ in range(10):
        K = Convolution(2, 3, 3, padding).double()
        y = torch.randn(1, 2, 9, 8).double()
        J = torch.autograd.functional.jacobian(K, y).reshape(216, 144)
        exact = float(torch.linalg.matrix_norm(J, ord=2))
        assert exact <= convolution_norm(K) <= 3 * exact
    with pytest.raises(ValueError, match="neumann"):
        convolution_norm(Convolution(2, 3, padding="neumann"))


def test_bound_of_a_batch_normed_layer_and_what_has_none() -> None:
    torch.manual_seed(0)
    f = DoubleLayer(2).double()
    f(10 * torch.randn(8, 2, 9, 9).double())
    f.eval()
    x, y = torch.randn(2, 500, 2, 9, 9).double()
    stretch = (f(x) - f(y)).flatten(1).norm(dim=1) / (x - y).flatten(1).norm(dim=1)
    assert float(stretch.detach().max()) <= layer_bound(f)
    step, _ = symmetric_step(0.0, integrator=ForwardEuler())
    assert step_bound(step, f) == pytest.approx(1 + layer_bound(f))
    released = ReleasedLayer(2, norm="none").double()
    assert step_bound(step, released) == pytest.approx(1 + layer_bound(released))
    for unknown in (DoubleLayer(2, activation="silu"), DoubleLayer(2, norm="tv")):
        with pytest.raises(ValueError, match="bound"):
            layer_bound(unknown)
    step, f = symmetric_step(0.0, integrator=Midpoint())
    with pytest.raises(ValueError, match="Midpoint has no bound here"):
        step_bound(step, f)
