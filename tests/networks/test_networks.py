"""The networks: published sizes, the explicit twin, costs, and refusals."""

import math
from functools import partial

import pytest
import torch
from conftest import needs_kernels, rounding
from torch import nn

from imex_experiments.integrators import (
    ETD1,
    ForwardEuler,
    Imex,
    ImexEuler,
    Integrator,
    Theta,
    Verlet,
)
from imex_experiments.networks import DynamicNet, UNet
from imex_experiments.networks.cost import count_flops, count_parameters
from imex_experiments.terms import (
    DoubleLayer,
    GramDiffusion,
    ImplicitConv2d,
    SymmetricLayer,
)


def make(integrator: Integrator, alpha: float = 1.0, **options: object) -> DynamicNet:
    torch.manual_seed(0)
    defaults = {"widths": [4, 8], "layer": DoubleLayer, "diffusion": GramDiffusion}
    return DynamicNet(1, 4, integrator=integrator, alpha=alpha, **(defaults | options))


def test_published_sizes_for_qtips() -> None:
    sizes = {"widths": [64, 128, 256], "steps": 3, "layer": SymmetricLayer}
    resnet, imexnet = (
        count_parameters(make(i, **sizes)) for i in (ForwardEuler(), Imex())
    )
    assert resnet["convolution"] == imexnet["convolution"] == 2_691_648
    assert resnet["diffusion"] == 0
    assert imexnet["diffusion"] == 12_096
    assert imexnet["total"] - resnet["total"] == 12_096


def test_total_counts_every_weight() -> None:
    for network in (make(Imex()), UNet(1, 4, [3, 6])):
        total = sum(p.numel() for p in network.parameters())
        assert count_parameters(network)["total"] == total


@pytest.mark.parametrize("integrator", [Imex(), ImexEuler()])
@pytest.mark.parametrize("init", ["uniform", "laplacian"])
def test_alpha_zero_is_the_resnet_bit_for_bit(
    integrator: Integrator, init: str
) -> None:
    """Same seed, same weights of f, same output, same gradients."""
    implicit = make(
        integrator, alpha=0.0, steps=2, diffusion=partial(GramDiffusion, init=init)
    )
    explicit = make(ForwardEuler(), alpha=0.0, steps=2)
    x = torch.randn(3, 1, 16, 16)
    for network in (implicit, explicit):
        network(x).square().sum().backward()
    assert torch.equal(implicit(x), explicit(x))
    gradients = dict(implicit.named_parameters())
    for name, parameter in explicit.named_parameters():
        assert torch.equal(parameter.grad, gradients[name].grad)


def test_alpha_changes_the_output() -> None:
    x = torch.randn(2, 1, 16, 16)
    assert not torch.allclose(make(Imex(), 1.0)(x), make(ForwardEuler())(x))


def reach(network: nn.Module) -> int:
    """How far from the middle an output still depends on the middle pixel."""
    x = torch.zeros(1, 1, 33, 33, dtype=torch.float64)
    bump = x.clone()
    bump[..., 16, 16] = 1
    with torch.no_grad():
        changed, still = network(bump), network(x)
    difference = (changed - still).abs().amax((0, 1))
    # Two solves leave the rounding of their transforms over 33 rows and 33 columns.
    noise = rounding(torch.float64, 2 * 2 * (33 + 33), float(changed.abs().max()))
    rows, columns = torch.nonzero(difference > noise, as_tuple=True)
    return int(max((rows - 16).abs().max(), (columns - 16).abs().max()))


def test_explicit_network_sees_its_stencils_and_implicit_one_sees_everything() -> None:
    assert reach(make(ForwardEuler()).double().eval()) == 2 * (1 + 2)
    assert reach(make(Imex()).double().eval()) == 16


def test_effective_alpha_is_recorded() -> None:
    assert make(Imex(), 3.0).alpha == 3.0
    assert make(ForwardEuler(), 3.0).alpha == 0.0
    assert UNet(1, 4, [3, 6], alpha=3.0).alpha == 0.0


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"h": 0.0}, "h must be > 0"),
        ({"alpha": -1.0}, "alpha must be >= 0"),
        ({"steps": 0}, "steps must be >= 1"),
        ({"widths": []}, "widths must be"),
        ({"widths": [4, 0]}, "widths must be"),
        ({"boundary": "reflect"}, "boundary must be"),
        ({"diffusion": partial(GramDiffusion, backend="mkl")}, "backend must be"),
        ({"padding": "same"}, "padding must be"),
    ],
)
@pytest.mark.parametrize("integrator", [Imex(), ForwardEuler()])
def test_unsound_options_are_refused_for_both_kinds(
    integrator: Integrator, options: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        make(integrator, **options)


@pytest.mark.parametrize("boundary", ["periodic", "neumann", "dirichlet"])
def test_one_boundary_pads_and_solves(boundary: str) -> None:
    """Constants stay constant where nothing is lost at the edge, and not else."""
    network = make(Imex(), boundary=boundary, padding=None).double().eval()
    y = network(torch.ones(1, 1, 12, 10).double()).detach()
    sums = 9 * (1 + 4 + 4 + 4 + 8 + 8)  # of six convolutions
    spread = rounding(torch.float64, sums + 2 * 2 * (12 + 10)) * y.abs().max()
    assert (y.std((-2, -1)).max() <= spread) == (boundary != "dirichlet")


def test_recomputed_blocks_change_neither_gradients_nor_batch_statistics() -> None:
    kept, again = (make(Imex(), steps=2, checkpoint_blocks=c) for c in (False, True))
    x = torch.randn(3, 1, 16, 16)
    for network in (kept, again):
        network(x).square().sum().backward()
    for (name, one), other in zip(
        kept.named_parameters(), again.parameters(), strict=True
    ):
        torch.testing.assert_close(one.grad, other.grad, msg=name)
    for (name, one), other in zip(kept.named_buffers(), again.buffers(), strict=True):
        torch.testing.assert_close(one, other, msg=name)


def saved_bytes(network: nn.Module, x: torch.Tensor) -> int:
    """What the forward pass keeps for the backward pass, beside the weights."""
    kept: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = network(x)
    assert y.requires_grad
    return sum(kept.values())


def test_recomputed_blocks_keep_less() -> None:
    x = torch.randn(3, 1, 16, 16)
    many = {c: make(Imex(), steps=6, checkpoint_blocks=c) for c in (False, True)}
    assert saved_bytes(many[True], x) < 0.4 * saved_bytes(many[False], x)


@pytest.mark.parametrize(
    "backend", ["fft", "gemm", pytest.param("fused", marks=needs_kernels)]
)
def test_a_solve_keeps_one_tensor_of_the_size_of_its_input(backend: str) -> None:
    layer = ImplicitConv2d(4, backend=backend)
    x = torch.randn(8, 4, 32, 32, requires_grad=True)
    spectrum = x.nbytes * (2 * 17 / 32 if backend == "fft" else 1)
    symbols = 8 * 4 * 32 * 32 * 4  # of one image, a few times
    assert spectrum <= saved_bytes(layer, x) <= spectrum + symbols
    layer.L.B.requires_grad_(False)
    assert saved_bytes(layer, x) <= symbols


def test_a_network_that_coarsens_continues_images_to_its_multiple() -> None:
    """By their reflection (tests of backbones have images too small for one)."""
    network = UNet(1, 4, [2, 3, 4]).eval()
    y = torch.randn(2, 1, 16, 12)
    assert torch.equal(network(y), network.outputs(y))
    odd = y[..., :15, :10]
    larger = torch.cat([odd, odd[..., 13:14, :]], -2)
    larger = torch.cat([larger, larger[..., [8, 7]]], -1)
    assert torch.equal(network(odd), network.outputs(larger)[..., :15, :10])


def test_flops_of_convolutions_and_transforms_are_counted() -> None:
    explicit = make(ForwardEuler())
    fft, gemm = (
        make(Imex(), diffusion=partial(GramDiffusion, backend=backend))
        for backend in ("fft", "gemm")
    )
    pixels = 16 * 16
    convolutions = 2 * 9 * pixels * (1 * 4 + 2 * 4 * 4 + 4 * 8 + 2 * 8 * 8)
    head = 2 * pixels * 8 * 4
    flops = count_flops(explicit, (1, 16, 16))
    assert flops["total"] == convolutions + head
    assert flops["head"] == head
    assert sum(v for k, v in flops.items() if k != "total") == flops["total"]
    transforms = 2 * 2.5 * pixels * math.log2(pixels)  # real, there and back
    symbols = 2 * 2 * 9 * (16 * 9)  # two products per channel
    products = 4 * 2 * 16**3  # both axes, there and back
    for implicit, solve in ((fft, transforms), (gemm, products)):
        added = count_flops(implicit, (1, 16, 16))["total"] - flops["total"]
        assert added == (4 + 8) * (solve + symbols)


def test_parts_that_only_act_pointwise_count_as_none() -> None:
    network = nn.Sequential(nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU()))
    flops = count_flops(network, (1, 4, 4))
    assert flops == {"0.0": 2 * 2 * 16, "0.1": 0, "total": 2 * 2 * 16}


def test_counting_leaves_the_network_alone() -> None:
    network = make(Imex())
    before = {k: v.clone() for k, v in network.state_dict().items()}
    count_flops(network, (1, 16, 16))
    assert network.training
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


@pytest.mark.parametrize("scheme", [ForwardEuler(), Imex(), ImexEuler(), ETD1()])
def test_learned_h_is_a_step_of_another_size(scheme: Integrator) -> None:
    """With its unit at 2 the network is the one of h = 2, and the unit gets a gradient."""
    learned, fixed = make(scheme, h="learned", steps=2), make(scheme, h=2.0, steps=2)
    y = torch.randn(2, 1, 8, 8)
    assert learned.h == 1.0
    with torch.no_grad():
        for block in learned.blocks:
            block.unit.a.fill_(math.log(3))  # softplus(log 3) = log 4
    assert learned.h == pytest.approx(2)
    torch.testing.assert_close(learned(y), fixed(y))
    learned(y).square().mean().backward()
    assert all(float(block.unit.a.grad) != 0 for block in learned.blocks)


def test_learned_h_of_a_solved_step_gets_the_gradient_of_a_difference() -> None:
    """Backward goes through the implicit function theorem: h must not be lost there."""
    layer = partial(DoubleLayer, norm="none", activation="tanh")
    network = make(Theta(0.5, tol=1e-12), layer=layer, h="learned").double()
    y = torch.randn(1, 1, 6, 6, dtype=torch.float64)
    a = network.blocks[0].unit.a
    network(y).square().sum().backward()
    values = []
    with torch.no_grad():
        for shift in (1e-5, -2e-5):
            a.add_(shift)
            values.append(float(network(y).square().sum()))
    assert float(a.grad) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4)


def test_learned_h_and_alpha_are_refused_where_they_have_no_meaning() -> None:
    with pytest.raises(ValueError, match="the f of Verlet is a second derivative"):
        make(Verlet(), h="learned")
    assert make(ForwardEuler(), alpha="learned").alpha == 0.0
    assert UNet(1, 4, [3, 6], h="learned", alpha="auto").h == 1.0
    assert make(Imex(), alpha="learned").alpha == pytest.approx(100)
