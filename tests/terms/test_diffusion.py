"""The operators as modules: alpha, the zero-mean stencil, and the drop-in layer."""

from collections.abc import Callable

import pytest
import torch
from conftest import rounding
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from imex_experiments import ImplicitConv2d
from imex_experiments.terms.diffusion import (
    Diffusion,
    GramDiffusion,
    IdentityDiffusion,
    LaplacianDiffusion,
    NormedGramDiffusion,
)
from imex_experiments.terms.positive import FIRST_ALPHA

KINDS = [IdentityDiffusion, LaplacianDiffusion, GramDiffusion]


def inversion_error(L: Diffusion, h: float, y: Tensor) -> float:
    """Return a bound on the error of L.solve(y + h L y, h) = y.

    Each of the two products transforms rows and columns, there and back; the first one
    makes 1 + h lambda of an entry at most.
    """
    height, width = y.shape[-2:]
    largest = 1 + h * float((L.alpha * L.symbol((height, width))).detach().max())
    entry = float(y.abs().max())
    return rounding(torch.float64, 4 * (height + width), largest * entry)


@pytest.mark.parametrize("kind", KINDS)
def test_solve_inverts_the_operator(kind: type[Diffusion]) -> None:
    L = kind(3, alpha=2.5).double()
    y = torch.randn(2, 3, 9, 8, dtype=torch.float64)
    h = 0.3
    atol = inversion_error(L, h, y)
    torch.testing.assert_close(L.solve(y + h * L(y), h), y, rtol=0, atol=atol)


@pytest.mark.parametrize("kind", KINDS)
def test_operator_is_positive_semi_definite(kind: type[Diffusion]) -> None:
    L = kind(3, alpha=2.5).double()
    y = torch.randn(2, 3, 9, 8, dtype=torch.float64)
    assert (y * L(y)).sum() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_alpha_zero_is_the_identity_bit_for_bit(kind: type[Diffusion]) -> None:
    y = torch.randn(2, 3, 9, 8)
    assert torch.equal(kind(3, alpha=0.0).solve(y, 0.7), y)


@pytest.mark.parametrize("alpha", [-1.0, float("nan"), float("inf")])
def test_unsound_alpha_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha must be >= 0 and finite, got"):
        GramDiffusion(3, alpha=alpha)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("boundary", ["neumann", "dirichlet"])
def test_solve_inverts_the_operator_within_walls(
    kind: type[Diffusion], boundary: str
) -> None:
    L = kind(3, 2.5, boundary).double()
    y = torch.randn(2, 3, 9, 8, dtype=torch.float64)
    atol = inversion_error(L, 0.3, y)
    torch.testing.assert_close(L.solve(y + 0.3 * L(y), 0.3), y, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (
            {"boundary": "reflect"},
            "boundary must be one of .*, got 'reflect'; reflect is",
        ),
        (
            {"backend": "mkl"},
            "backend must be one of auto, fft, gemm, fused, got 'mkl'",
        ),
        (
            {"backend": "fused", "boundary": "neumann"},
            "backend=fused has no neumann boundary; take backend=auto",
        ),
    ],
)
def test_unknown_names_are_told_with_the_choices(
    options: dict[str, str], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        GramDiffusion(3, alpha=1.0, **options)


def in_place(B: nn.Parameter, new: Tensor) -> None:
    with torch.no_grad():
        B.mul_(0).add_(new)


def by_copy(B: nn.Parameter, new: Tensor) -> None:
    with torch.no_grad():
        B.copy_(new)


def by_data_in_place(B: nn.Parameter, new: Tensor) -> None:
    B.data.mul_(0).add_(new)


def by_data(B: nn.Parameter, new: Tensor) -> None:
    B.data = new.clone()


def by_vector(B: nn.Parameter, new: Tensor) -> None:
    nn.utils.vector_to_parameters(new.flatten(), [B])


def by_optimizer(B: nn.Parameter, new: Tensor) -> None:
    B.grad = B.detach() - new
    torch.optim.SGD([B], lr=1.0).step()


def by_numpy(B: nn.Parameter, new: Tensor) -> None:
    B.detach().numpy()[...] = new.numpy()


def by_loading(layer: nn.Module, new: Tensor) -> None:
    layer.load_state_dict({"L.B": new})


def by_another_parameter(layer: ImplicitConv2d, new: Tensor) -> None:
    layer.L.B = nn.Parameter(new.clone())


def through_float64(layer: ImplicitConv2d, new: Tensor) -> None:
    layer.double()
    layer.L.B.data.copy_(new)
    layer.float()


EDITS = [in_place, by_copy, by_data_in_place, by_data, by_vector, by_optimizer]
EDITS += [by_numpy]
CHANGES = [by_loading, by_another_parameter, through_float64]
CHANGES += [lambda layer, new, edit=edit: edit(layer.L.B, new) for edit in EDITS]
CONTEXTS = [torch.enable_grad, torch.no_grad, torch.inference_mode]


@settings(deadline=None, max_examples=60)
@given(
    changes=st.lists(st.sampled_from(CHANGES), min_size=1, max_size=3),
    context=st.sampled_from(CONTEXTS),
    training=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_a_solve_follows_its_weights_however_they_are_changed(
    changes: list[Callable], context: Callable, training: bool, seed: int
) -> None:
    """Bit for bit the solve of a fresh layer: nothing of an earlier one is left."""
    generator = torch.Generator().manual_seed(seed)
    layer = ImplicitConv2d(2, alpha=3.0).train(training)
    x = torch.randn(1, 2, 6, 8, generator=generator)
    for change in changes:
        with context():
            before = layer(x)
        change(layer, torch.rand(2, 3, 3, generator=generator))
        fresh = ImplicitConv2d(2, alpha=3.0).train(training)
        fresh.load_state_dict(layer.state_dict())
        with context():
            after = layer(x)
            assert torch.equal(after, fresh(x))
        assert not torch.equal(after, before)


def test_an_ensemble_of_layers_is_mapped_over_its_weights() -> None:
    layers = [ImplicitConv2d(2, init="uniform") for _ in range(3)]
    for k, layer in enumerate(layers):
        layer.L.B.data *= 1 + k
    x = torch.randn(2, 2, 7, 8)
    weights, buffers = torch.func.stack_module_state(layers)

    def solve(weights: dict, buffers: dict, x: Tensor) -> Tensor:
        return torch.func.functional_call(layers[0], (weights, buffers), (x,))

    together = torch.func.vmap(solve, (0, 0, None))(weights, buffers, x)
    alone = torch.stack([layer(x) for layer in layers])
    torch.testing.assert_close(together, alone)


def test_mean_of_the_stencil_has_no_effect_and_no_gradient() -> None:
    """The reparametrisation: B and B + c are the same operator, and B is never edited."""
    L = GramDiffusion(2, alpha=3.0).double()
    y = torch.randn(1, 2, 8, 8, dtype=torch.float64)
    before = L.B.detach().clone()
    L.solve(y, 1.0).square().sum().backward()
    assert torch.equal(L.B, before)
    torch.testing.assert_close(L.B.grad.sum((-2, -1)), torch.zeros(2).double())
    expected = L.solve(y, 1.0)
    with torch.no_grad():
        L.B += 5.0
    torch.testing.assert_close(L.solve(y, 1.0), expected)


def test_uniform_start_lies_in_the_published_range() -> None:
    B = GramDiffusion(64, alpha=1.0, init="uniform").B
    assert 0 <= B.min() < 0.05
    assert 0.95 < B.max() < 1


def test_laplacian_start_is_eq_7_squared() -> None:
    gram, laplacian = (
        GramDiffusion(1, 1.0, init="laplacian"),
        LaplacianDiffusion(1, 1.0),
    )
    torch.testing.assert_close(gram.symbol((8, 9)), laplacian.symbol((8, 9)).square())


def test_making_an_operator_leaves_the_random_numbers_of_f_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    GramDiffusion(8, alpha=1.0, init="uniform")
    assert torch.equal(torch.rand(4), expected)


def test_normed_gram_solves_for_the_normalised_image() -> None:
    L = NormedGramDiffusion(3, alpha=2.0)
    y = 5 + 3 * torch.randn(4, 3, 8, 8)
    normed = nn.functional.batch_norm(y, None, None, training=True)
    torch.testing.assert_close(L.solve(y, 1.0), GramDiffusion.solve(L, normed, 1.0))


def test_drop_in_layer_works_alone_and_trains() -> None:
    torch.manual_seed(0)
    layer = ImplicitConv2d(channels=4, h=1.0, alpha=10.0)
    x = torch.zeros(1, 4, 32, 32)
    x[..., 16, 16] = 1
    y = layer(x)
    assert sum(p.numel() for p in layer.parameters()) == 9 * 4
    torch.testing.assert_close(
        y.sum((-2, -1)), x.sum((-2, -1))
    )  # zero-mean B keeps means
    assert y[..., 0, 0].abs().min() > 0  # one layer couples all pixels
    y.square().sum().backward()
    assert layer.L.B.grad.abs().max() > 0


def test_drop_in_layer_with_alpha_zero_or_h_zero_is_the_identity() -> None:
    x = torch.randn(2, 3, 7, 6)
    assert torch.equal(ImplicitConv2d(3, alpha=0.0)(x), x)
    torch.testing.assert_close(ImplicitConv2d(3, h=0.0)(x), x)
    with pytest.raises(ValueError, match="h must be >= 0 and finite, got -1"):
        ImplicitConv2d(3, h=-1.0)


@pytest.mark.parametrize("kind", KINDS)
def test_learned_alpha_starts_as_the_number_and_gets_a_gradient(
    kind: type[Diffusion],
) -> None:
    """One per channel; frozen at its start it is the fixed operator."""
    y = torch.randn(2, 3, 9, 8)
    torch.manual_seed(0)
    learned = kind(3, alpha="learned")
    torch.manual_seed(0)
    fixed = kind(3, alpha=FIRST_ALPHA)
    torch.testing.assert_close(learned.solve(y, 0.7), fixed.solve(y, 0.7))
    torch.testing.assert_close(learned(y), fixed(y))
    learned.solve(y, 0.7)[:, 1].square().sum().backward()
    gradient = learned.strength.a.grad.flatten()
    assert gradient[1] != 0
    assert gradient[0] == gradient[2] == 0
    with torch.no_grad():
        learned.strength.a.fill_(-5.0)
    assert 0 < float(learned.alpha.detach().max()) < 1


def test_learned_alpha_passes_gradcheck() -> None:
    L = GramDiffusion(2, alpha="learned").double()
    y = torch.randn(1, 2, 5, 4, dtype=torch.float64)

    def solved(a: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(L, {"strength.a": a}, (y,))

    a = torch.randn(2, 1, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(solved, (a,))


def test_chosen_alpha_is_saved_and_seen_by_the_solve() -> None:
    """It is a buffer: in the checkpoint, not trained, and a change of it is noticed."""
    L = GramDiffusion(2, alpha="auto").eval()
    y = torch.randn(1, 2, 8, 8)
    with torch.no_grad():
        first = L.solve(y, 1.0)
        L.strength.value.fill_(7.0)
        torch.testing.assert_close(L.solve(y, 1.0), _fixed_like(L, 7.0).solve(y, 1.0))
    assert not torch.allclose(first, L.solve(y, 1.0))
    assert float(L.state_dict()["strength.value"]) == 7.0
    assert [name for name, _ in L.named_parameters()] == ["B"]
    with pytest.raises(ValueError, match="got many"):
        GramDiffusion(2, alpha="many")


def _fixed_like(L: GramDiffusion, alpha: float) -> GramDiffusion:
    other = GramDiffusion(L.channels, alpha)
    other.B = L.B
    return other
