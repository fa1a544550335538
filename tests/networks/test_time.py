"""Blocks on any grid: knots, interpolated weights, refinement, split states."""

import copy
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest
import torch
from conftest import rounding
from torch import Tensor, nn

from imex_experiments.integrators import (
    ClassicRK4,
    ForwardEuler,
    Imex,
    Integrator,
    TimeGrid,
    Verlet,
)
from imex_experiments.networks import (
    DynamicBlock,
    DynamicNet,
    refine_knots,
    refine_steps,
)
from imex_experiments.terms import (
    Bounded,
    DoubleLayer,
    GramDiffusion,
    IdentityDiffusion,
    SkewSymmetricLayer,
)

POINTS = (0.0, 0.5, 0.75, 2.0)
tv_layer = partial(DoubleLayer, norm="tv", activation="tanh")


def block(integrator: Integrator, channels: int = 2, **options: object) -> DynamicBlock:
    torch.manual_seed(0)
    make_l = partial(GramDiffusion, alpha=1.0)
    return DynamicBlock(
        channels, TimeGrid(POINTS), integrator, tv_layer, make_l, **options
    )


def net(**options: object) -> DynamicNet:
    torch.manual_seed(0)
    defaults = {
        "widths": [2, 4],
        "steps": 2,
        "layer": tv_layer,
        "diffusion": GramDiffusion,
        "integrator": ClassicRK4(),
    }
    return DynamicNet(1, 3, **(defaults | options))


class Damping(nn.Module):
    """L = 2 I, which derives from no class of this package and has no alpha."""

    def __init__(self, channels: int, alpha: float, boundary: str) -> None:
        super().__init__()

    def forward(self, y: Tensor) -> Tensor:
        return 2 * y

    def solve(self, y: Tensor, h: float) -> Tensor:
        return y / (1 + 2 * h)

    def function(self, y: Tensor, g: Callable[[Tensor], Tensor]) -> Tensor:
        return g(torch.full_like(y, 2.0)) * y


def test_an_operator_of_any_class_is_solved_with() -> None:
    mine, ours = (
        net(integrator=Imex(), diffusion=kind, alpha=2.0)
        for kind in (Damping, IdentityDiffusion)
    )
    y = torch.randn(1, 1, 8, 8)
    torch.testing.assert_close(mine(y), ours(y))
    assert (ours.alpha, mine.alpha, net().alpha) == (2.0, None, 0.0)
    with pytest.raises(ValueError, match="must make an operator with solve and funct"):
        net(integrator=Imex(), diffusion=lambda *_, **__: nn.Identity())


def rk4_loop(weights: list[list[nn.Module]], y: Tensor) -> Tensor:
    """RK4 written out, with the modules at the start, middle and end of every step."""
    for (t0, t1), (first, middle, last) in zip(
        TimeGrid(POINTS).steps(), weights, strict=True
    ):
        h = t1 - t0
        k1 = first(y)
        k2 = middle(y + h / 2 * k1)
        k3 = middle(y + h / 2 * k2)
        k4 = last(y + h * k3)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return y


def test_rk4_with_a_module_per_step_equals_a_loop_bit_for_bit() -> None:
    """Knots on the grid, weights constant in between: no stage sees the next step's."""
    network, y = block(ClassicRK4()), torch.randn(2, 2, 6, 6)
    assert torch.equal(network(y), rk4_loop([[f] * 3 for f in network.layers], y))


def test_rk4_with_equal_linear_knots_equals_a_loop_bit_for_bit() -> None:
    network, y = block(ClassicRK4(), interpolation="linear"), torch.randn(2, 2, 6, 6)
    f = network.layers[0]
    for knot in network.layers:
        knot.load_state_dict(f.state_dict())
    assert torch.equal(network(y), rk4_loop([[f] * 3] * 3, y))


def test_rk4_with_linear_knots_uses_the_mean_in_the_middle() -> None:
    network = block(ClassicRK4(), interpolation="linear").double()
    y = torch.randn(2, 2, 6, 6, dtype=torch.float64)
    weights = []
    for left, right in pairwise(network.layers):
        middle = copy.deepcopy(left)
        with torch.no_grad():
            for m, q in zip(middle.parameters(), right.parameters(), strict=True):
                m.copy_((m + q) / 2)
        weights.append([left, middle, right])
    # Weights that were float32: their differences and means are exact in float64.
    assert torch.equal(network(y), rk4_loop(weights, y))


def test_knots_of_their_own_have_their_own_number_of_weights() -> None:
    linear = block(ForwardEuler(), interpolation="linear", knots=[0.0, 2.0])
    constant = block(Imex(), knots=[-1.0, 0.6, 3.0])
    assert len(linear.layers) == 2
    assert len(constant.layers) == len(constant.operators) == 2
    linear(torch.randn(1, 2, 6, 6)).sum().backward()
    assert all(p.grad.abs().max() > 0 for p in linear.parameters())


@pytest.mark.parametrize("knots", [[0.1, 2.0], [0.0, 1.9], [0.5, 1.0]])
def test_knots_that_do_not_cover_the_states_are_refused(knots: list[float]) -> None:
    with pytest.raises(ValueError, match=r"knots must cover the time points, from 0.0"):
        block(ForwardEuler(), knots=knots)


def test_batch_norm_is_refused_where_a_module_serves_many_steps() -> None:
    grid, L = TimeGrid(POINTS), partial(GramDiffusion, alpha=1.0)
    make = partial(DynamicBlock, 2, grid, ForwardEuler(), DoubleLayer, L)
    make()
    with pytest.raises(ValueError, match="norm=batch: with knots"):
        make(knots=[0.0, 2.0])


def test_split_state_has_a_layer_of_half_the_channels() -> None:
    network = block(Verlet(), channels=4)
    assert network.layers[0].K1.weight.shape[:2] == (2, 2)
    assert network(torch.randn(2, 4, 6, 6)).shape == (2, 4, 6, 6)
    with pytest.raises(ValueError, match="widths must be even, got 5"):
        block(Verlet(), channels=5)


def test_more_steps_with_the_same_weights_approach_the_same_solution() -> None:
    """Two steps, refined four times: differences shrink by 2^4 (RK4)."""
    smooth = partial(DoubleLayer, norm="none", activation="tanh")
    network = net(interpolation="linear", layer=smooth, h=0.5).double()
    y = torch.randn(2, 1, 6, 6, dtype=torch.float64)
    network(y)  # running statistics of the connectors
    networks = [network.eval()]
    for _ in range(4):
        networks.append(refine_steps(networks[-1]))
    assert [len(n.blocks[0].grid.points) for n in networks] == [3, 5, 9, 17, 33]
    outputs = [n(y) for n in networks]
    gaps = [float((a - b).detach().norm()) for a, b in pairwise(outputs)]
    assert 12 < gaps[-2] / gaps[-1] < 20
    assert sum(p.numel() for p in networks[-1].parameters()) == sum(
        p.numel() for p in network.parameters()
    )


@pytest.mark.parametrize("interpolation", ["constant", "linear"])
@pytest.mark.parametrize("integrator", [ClassicRK4(), Imex()])
def test_more_knots_leave_the_output_alone(
    interpolation: str, integrator: Integrator
) -> None:
    network = net(interpolation=interpolation, integrator=integrator).double().eval()
    finer = refine_knots(network, 3)
    y = torch.randn(2, 1, 6, 6, dtype=torch.float64)
    if interpolation == "linear" and isinstance(integrator, ClassicRK4):
        # The middle stages alone fall between knots. Four steps of four layers, each with
        # two kernels of 9 taps over 4 channels and two norms that make ten times as much
        # of an error at most.
        atol = rounding(torch.float64, 4 * 4 * 2 * (4 * 9 + 2), 10)
        torch.testing.assert_close(finer(y), network(y), rtol=0, atol=atol)
    else:
        assert torch.equal(finer(y), network(y))
    layers = network.blocks[0].layers
    assert finer.blocks[0].layers.knots[::3] == layers.knots
    assert len(finer.blocks[0].layers) > len(layers)


def test_time_penalty_is_the_roughness_of_all_blocks() -> None:
    assert net().penalty() is None
    network = net(time_penalty=0.25)
    expected = sum(float(b.layers.roughness().detach()) for b in network.blocks)
    assert expected > 0
    assert float(network.penalty().detach()) == pytest.approx(0.25 * expected)


def test_times_are_uniform_geometric_or_given() -> None:
    assert net(h=0.5).blocks[0].grid.points == (0.0, 0.5, 1.0)
    assert net(h=0.75, ratio=2.0).blocks[0].grid.points == pytest.approx((0, 0.5, 1.5))
    assert net(times=[0.0, 0.1, 2.0]).blocks[1].grid.points == (0.0, 0.1, 2.0)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"times": [0.0, 1.0, 0.5]}, "time points must be finite and increasing"),
        ({"knots": [0.0, 1.0]}, "knots must cover the time points"),
        ({"ratio": -1.0}, "ratio must be > 0"),
        ({"interpolation": "cubic"}, "interpolation must be one of constant, linear"),
        ({"time_penalty": -1.0}, "time_penalty must be >= 0"),
        ({"pool": "average"}, "a dense head needs the resolution"),
        ({"head": "classes", "pool": "min"}, "pool must be one of"),
        ({"closing": 0}, "closing must be null or a positive integer, got 0"),
        ({"head": "sparse"}, "head must be one of dense, classes"),
        ({"integrator": Verlet(), "widths": [3]}, "widths must be even, got 3"),
    ],
)
def test_unsound_options_are_refused(
    options: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        net(**options)


@pytest.mark.parametrize("pool", ["average", "max"])
def test_classes_come_from_pooled_features(pool: str) -> None:
    """Two blocks, one pool: 8 x 8 to 4 x 4, then the mean over pixels."""
    network = net(head="classes", pool=pool, connector=1, bias=True)
    sizes = []
    for stage in network.blocks:
        stage.register_forward_hook(lambda _, __, y: sizes.append(y.shape[-1]))
    assert network(torch.randn(5, 1, 8, 8)).shape == (5, 3)
    assert sizes == [8, 4]
    assert [s.K.weight.shape[-1] for s in network.stages[::2]] == [3, 1]


def test_a_closing_connector_stands_before_the_head() -> None:
    network = net(head="classes", connector=1, bias=True, closing=5)
    assert network.stages[-1].K.weight.shape[1:] == (
        network.blocks[-1].layers[0].K1.weight.shape[0],
        1,
        1,
    )
    assert network.head.weight.shape == (3, 5, 1, 1)
    assert network(torch.randn(2, 1, 8, 8)).shape == (2, 3)


def test_vectors_are_images_of_one_pixel() -> None:
    network = net(
        layer=partial(SkewSymmetricLayer, kernel_size=1),
        opening=1,
        connector=1,
        norm="none",
        bias=True,
    )
    assert network(torch.randn(7, 1, 1, 1)).shape == (7, 3, 1, 1)


def test_constraint_holds_for_the_convolutions_of_f_alone() -> None:
    network = net(constraint=partial(Bounded, bound=0.01), interpolation="linear")
    for part in network.blocks:
        assert all(f.K1.weight.abs().max() <= 0.01 for f in part.layers)
    assert network.stages[0].K.weight.abs().max() > 0.01
    network(torch.randn(2, 1, 6, 6)).sum().backward()
    original = network.blocks[0].layers[1].K1.parametrizations.weight.original
    assert original.grad.abs().max() > 0
