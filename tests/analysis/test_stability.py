"""Theorem 1, spectra of Jacobians, and the growth of small changes."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from conftest import rounding
from torch import nn

from imex_experiments.analysis.auto_alpha import (
    dissipative,
    longest_waves,
    sufficient_alpha,
    update_alphas,
)
from imex_experiments.analysis.jacobian import (
    eigenvalues,
    jacobian_operator,
    ritz_values,
    spectral_norm,
)
from imex_experiments.analysis.perturbation import (
    block_growths,
    growth_atlas,
    part_growths,
)
from imex_experiments.analysis.stability import explicit_limit, growth, minimal_alpha
from imex_experiments.analysis.trajectory import trajectory
from imex_experiments.integrators import SBDF2, ForwardEuler, Imex
from imex_experiments.networks import DynamicNet
from imex_experiments.terms import (
    DoubleLayer,
    GramDiffusion,
    IdentityDiffusion,
    LaplacianDiffusion,
    SymmetricLayer,
)


def test_minimal_alpha_is_exact_for_ten_thousand_spectra() -> None:
    """At the value no eigenvalue is amplified; just below it one is."""
    rng = np.random.default_rng(0)
    # Six roundings of alpha, of weight 2 lr / |lambda| <= 2, and four of a term of size 2.
    one = 1 + rounding(torch.float64, 6 * 2 + 4 * 2)
    sharp = 0
    for _ in range(10_000):
        number, h = rng.integers(1, 8), 10 ** rng.uniform(-1.5, 1.5)
        size = 10 ** rng.uniform(-1, 1, number)
        angle = np.pi + rng.uniform(-0.49, 0.49, number) * np.pi
        values = size * np.exp(1j * angle)
        alpha = minimal_alpha(values, h)
        assert growth(values, h, alpha).max() <= one
        if alpha > 0:
            sharp += 1
            below = alpha - 1e-3 * (alpha + 1 / h)
            assert growth(values, h, below).max() > one
    assert sharp > 3000


def test_minimal_alpha_of_known_spectra() -> None:
    assert minimal_alpha([-6.0], 1.0) == 2.0  # |lambda| / 2 - 1/h on the real axis
    assert minimal_alpha([-1.0, -6.0], 1.0) == 2.0
    assert minimal_alpha([-1.0], 1.0) == 0.0  # explicit steps are stable as well
    assert minimal_alpha([-1 + 1j], 10.0) == pytest.approx(1 - 0.1)
    assert minimal_alpha([], 1.0) == minimal_alpha([0.0], 1.0) == 0.0
    assert minimal_alpha([1j], 1.0) == minimal_alpha([-1.0, 0.1], 1.0) == math.inf
    for h in (0.0, -1.0, math.inf):
        with pytest.raises(ValueError, match="h must be > 0"):
            minimal_alpha([-1.0], h)
    with pytest.raises(ValueError, match="must be finite"):
        minimal_alpha([math.nan], 1.0)


def test_explicit_limit_is_where_no_alpha_is_needed() -> None:
    for values in ([-2.0], [-1 + 2j, -0.5], [-3 - 1j]):
        limit = explicit_limit(values)
        # The difference of |lambda|^2 / (2 lr) and 1 / h, which are equal.
        assert minimal_alpha(values, limit) <= rounding(torch.float64, 6, 1 / limit)
        assert minimal_alpha(values, 1.01 * limit) > 0
    assert explicit_limit([1j]) == 0.0
    assert explicit_limit([]) == math.inf


@pytest.fixture(scope="module")
def layer_and_jacobian() -> tuple[nn.Module, torch.Tensor, np.ndarray]:
    torch.manual_seed(0)
    f = DoubleLayer(2, norm="none", activation="tanh").double()
    y = torch.randn(1, 2, 6, 5, dtype=torch.float64)
    J = torch.autograd.functional.jacobian(f, y).reshape(60, 60).numpy()
    return f, y, J


def test_spectra_are_those_of_the_formed_jacobian(layer_and_jacobian: tuple) -> None:
    f, y, J = layer_and_jacobian
    operator = jacobian_operator(f, y)
    v = np.random.default_rng(1).standard_normal(60)
    atol = rounding(
        torch.float64, 2 * len(v), float(np.linalg.norm(J, 2) * np.abs(v).max())
    )
    np.testing.assert_allclose(operator @ v, J @ v, rtol=0, atol=atol)
    np.testing.assert_allclose(operator.rmatvec(v), J.T @ v, rtol=0, atol=atol)
    exact, vectors = np.linalg.eig(J)
    found = np.sort(np.abs(eigenvalues(operator, 4)))[::-1][:4]
    np.testing.assert_allclose(found, np.sort(np.abs(exact))[::-1][:4], rtol=2e-3)
    assert spectral_norm(operator) == pytest.approx(np.linalg.norm(J, 2), rel=1e-4)
    # Ritz values lie in the field of values, and as many as there are unknowns are exact.
    assert np.abs(ritz_values(operator, 20)).max() <= np.linalg.norm(J, 2)
    outline = np.abs(ritz_values(operator, len(v))).max()
    # Bauer and Fike: the condition of the eigenvectors times the error of J.
    condition = float(np.linalg.cond(vectors) * np.linalg.norm(J, 2))
    atol = rounding(torch.float64, len(v), condition)
    assert outline == pytest.approx(np.abs(exact).max(), rel=0, abs=atol)


def test_few_unknowns_have_all_their_eigenvalues() -> None:
    A = torch.tensor([[0.0, 2.0], [-2.0, 0.0]]).double()
    operator = jacobian_operator(lambda y: y @ A, torch.zeros(1, 2).double())
    np.testing.assert_allclose(sorted(eigenvalues(operator).imag), [-2, 2])
    found, atol = sorted(ritz_values(operator).imag), rounding(torch.float64, 8, 2)
    np.testing.assert_allclose(found, [-2, 2], rtol=0, atol=atol)
    assert spectral_norm(operator) == pytest.approx(2)


def make(integrator: object, **options: object) -> DynamicNet:
    torch.manual_seed(0)
    defaults = {
        "widths": [2, 3],
        "layer": partial(DoubleLayer, norm="none", activation="tanh"),
        "diffusion": GramDiffusion,
        "steps": 2,
    }
    return DynamicNet(1, 4, integrator=integrator, **(defaults | options)).eval()


def test_trajectory_is_the_forward_pass() -> None:
    network, y = make(Imex()), torch.randn(2, 1, 8, 8)
    steps = list(trajectory(network, y))
    assert [step.name for step in steps] == [
        f"block {b}, step {s}" for b in (1, 2) for s in (1, 2)
    ]
    torch.testing.assert_close(network.head(steps[-1](steps[-1].y)), network(y))


def test_trajectory_of_a_multistep_scheme() -> None:
    """Its states are those of the forward pass; a step by itself is refused."""
    network, y = make(SBDF2(), steps=3), torch.randn(2, 1, 8, 8)
    entered: list[torch.Tensor] = []
    network.blocks[1].register_forward_pre_hook(lambda _, args: entered.append(*args))
    network(y)
    second = next(step for step in trajectory(network, y) if step.block == 1)
    assert torch.equal(second.y, entered[0])
    with pytest.raises(ValueError, match="SBDF2: a step depends on the one before"):
        second(second.y)


def test_auto_alpha_of_a_multistep_scheme() -> None:
    chosen = update_alphas(
        make(SBDF2(), alpha="auto", diffusion=LaplacianDiffusion),
        torch.randn(2, 1, 8, 8),
    )
    assert all(alpha > 0 for alpha in chosen.values())
    assert len(chosen) == 4


def test_growth_of_a_linear_network_is_that_of_its_steps() -> None:
    """f = -K^T K Y without nonlinearity: the growth is below 1 under a large alpha only."""
    layer = partial(SymmetricLayer, norm="none", activation="none")
    y = torch.randn(2, 1, 16, 16)
    grown = [
        block_growths(make(scheme, layer=layer, widths=[2], h=40.0, alpha=alpha,
                          diffusion=IdentityDiffusion), y)[0].growth
        for scheme, alpha in ((ForwardEuler(), 0.0), (Imex(), 20.0))
    ]  # fmt: skip
    assert grown[0] > 10
    assert grown[1] < 1
    changes = [p.change for p in part_growths(make(Imex()), y)]
    growths = [p.growth for p in part_growths(make(Imex()), y)]
    np.testing.assert_allclose(changes, np.cumprod(growths), rtol=1e-4)


@pytest.mark.parametrize("boundary", ["periodic", "neumann", "dirichlet"])
def test_longest_waves_are_those_of_the_image(boundary: str) -> None:
    """k^2 for eq. 7, k^4 for its B^T B; k = 2 pi / n, or pi / n for cosines and sines."""
    n = 96
    waves = {"periodic": 2 * math.pi / n, "neumann": math.pi / n}
    k = waves.get(boundary, math.pi / (n + 1))
    least = k**2 * (2 if boundary == "dirichlet" else 1)
    found = longest_waves(LaplacianDiffusion(1, 1.0, boundary), (n, n))
    assert found == pytest.approx(least, rel=1e-2)
    gram = GramDiffusion(3, "auto", boundary, init="laplacian")
    assert longest_waves(gram, (n, n)) == pytest.approx(least**2, rel=1e-2)
    assert longest_waves(IdentityDiffusion(3, 1.0, boundary), (n, n)) == 1


def test_sufficient_alpha_obeys_the_bound_and_halves_the_longest_wave() -> None:
    values, h, weakest = np.array([-9.0, -2 + 1j, 0.3 + 2j]), 0.5, 1e-3
    alpha = sufficient_alpha(values, h, weakest)
    assert growth(dissipative(values), h, alpha * weakest).max() == pytest.approx(1)
    assert sufficient_alpha([-0.1], h, weakest) == pytest.approx(1 / (h * weakest))
    assert 1 / (1 + h * sufficient_alpha([-0.1], h, weakest) * weakest) == 0.5


def test_auto_alpha_follows_image_and_spectrum() -> None:
    network = make(Imex(), alpha="auto", diffusion=LaplacianDiffusion)
    small, large = torch.randn(2, 1, 16, 16), torch.randn(2, 1, 64, 64)
    before = network(large)
    chosen = [list(update_alphas(network, y).values()) for y in (small, large)]
    assert len(chosen[0]) == 4
    np.testing.assert_allclose(np.divide(*chosen[::-1]), 16, rtol=0.05)
    assert [float(L.alpha) for L in network.operators] == pytest.approx(chosen[1])
    assert network.alpha == pytest.approx(np.mean(chosen[1]))
    assert not torch.allclose(network(large), before)
    with torch.no_grad():
        stiff = SymmetricLayer(2, norm="none", activation="none")
        stiff.K.weight.mul_(30)
    network.blocks[0].layers[0] = stiff
    louder = next(iter(update_alphas(network, large).values()))
    assert louder > 10 * chosen[1][0]
    assert update_alphas(make(Imex(), alpha=3.0), small) == {}
    assert update_alphas(make(ForwardEuler(), alpha="auto"), small) == {}


def test_atlas_of_a_linear_equation_is_known() -> None:
    """Y' = -c Y: |1 - h c / (1 + h alpha)|^n, 1 exactly on the limit of Theorem 1."""
    c, y = 4.0, torch.randn(1, 2, 5, 5, dtype=torch.float64)
    alphas, hs = [0.0, 1.0, 3.0], [0.1, 0.5, 2.0]
    grown = growth_atlas(lambda v: -c * v, y, alphas, hs, steps=10)
    exact = [[abs(1 - h * c / (1 + h * a)) ** 10 for a in alphas] for h in hs]
    # Changes of 1e-6, three roundings a step: of |Y| (1 + z) where (1 - z) |Y| is left,
    # z = h c / (1 + h alpha), at most 15 times as much.
    rtol = rounding(torch.float64, 3 * 10, 1e6 * 15)
    np.testing.assert_allclose(grown, exact, rtol=rtol)
    on_limit = growth_atlas(lambda v: -c * v, y, [minimal_alpha([-c], 2.0)], [2.0])
    assert float(on_limit[0, 0]) == pytest.approx(1, rel=rtol)
