"""The theta-scheme: residuals, gradients against an unrolled solve, memory of its reverse."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from conftest import rounding
from torch import Tensor, nn

from imex_experiments.integrators import (
    ForwardEuler,
    Integrator,
    Theta,
    TimeGrid,
    integrate,
)
from imex_experiments.networks import DynamicBlock
from imex_experiments.solvers import SOLVERS, SolveInfo
from imex_experiments.terms import (
    DoubleLayer,
    GramDiffusion,
    LaplacianDiffusion,
    SymmetricLayer,
)
from imex_experiments.terms.weight_path import WeightPath

FORMS = ("midpoint", "trapezoidal")
smooth_layer = partial(DoubleLayer, norm="none", activation="tanh")


def block(integrator: object, steps: int = 2, **options: object) -> DynamicBlock:
    torch.manual_seed(0)
    make_l = partial(GramDiffusion, alpha=1.0)
    grid = TimeGrid.geometric(1.0 / steps, steps, 1.3 if steps < 8 else 1.0)
    return DynamicBlock(2, grid, integrator, smooth_layer, make_l, **options).double()


def image(samples: int = 3) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(samples, 2, 5, 6, dtype=torch.float64)


def gradients(network: DynamicBlock, y: Tensor) -> list[Tensor]:
    y = y.clone().requires_grad_()
    end = network(y)
    weights = torch.linspace(-1, 2, end.numel(), dtype=end.dtype).view_as(end)
    loss = (weights * end).sum() + end.square().sum()
    return list(torch.autograd.grad(loss, (y, *network.parameters())))


class Unrolled(Integrator):
    """The same equation by 200 fixed-point iterations that autograd sees."""

    order = 1

    def __init__(self, theta: float, form: str) -> None:
        self.theta, self.form = theta, form

    def step(self, system: object, t0: float, t1: float, y: Tensor) -> Tensor:
        f, h, theta, x = system.f, t1 - t0, self.theta, y
        for _ in range(200):
            if self.form == "midpoint":
                x = y + h * f(t0 + theta * h, (1 - theta) * y + theta * x)
            else:
                x = y + h * ((1 - theta) * f(t0, y) + theta * f(t1, x))
        return x


@pytest.fixture(scope="module")
def unrolled() -> Callable[[float, str], list[Tensor]]:
    known: dict[tuple[float, str], list[Tensor]] = {}

    def find(theta: float, form: str) -> list[Tensor]:
        if (theta, form) not in known:
            known[theta, form] = gradients(block(Unrolled(theta, form)), image())
        return known[theta, form]

    return find


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("theta", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("solver", SOLVERS)
def test_backward_equals_autograd_through_an_unrolled_solve(
    solver: str, theta: float, form: str, unrolled: Callable[..., list[Tensor]]
) -> None:
    scheme = Theta(theta, form, solver, tol=1e-9, max_iterations=500)
    found = gradients(block(scheme), image())
    expected = unrolled(theta, form)
    # Two steps, with a solve forward and one backward: four relative errors of tol.
    size = math.sqrt(sum(float(gradient.square().sum()) for gradient in expected))
    for gradient, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, exact, rtol=0, atol=4 * scheme.tol * size)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("theta", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("guess", ["linearised", "state"])
def test_residual_of_the_equation_is_below_the_tolerance(
    solver: str, theta: float, form: str, guess: str
) -> None:
    scheme = Theta(theta, form, solver, guess, tol=1e-7, max_iterations=200)
    told: list[tuple[str, SolveInfo]] = []
    scheme.on_solve = lambda which, info: told.append((which, info))
    network, y = block(scheme), image()
    system = network.during(0.0, 0.4)
    with torch.no_grad():
        x = scheme.step(system, 0.0, 0.4, y)
        if form == "midpoint":
            right = y + 0.4 * system.f(0.4 * theta, (1 - theta) * y + theta * x)
        else:
            slopes = (1 - theta) * system.f(0.0, y) + theta * system.f(0.4, x)
            right = y + 0.4 * slopes
    residual = (right - x).square().mean((1, 2, 3)).sqrt()
    assert (residual <= 1e-7).all()
    ((which, info),) = told
    assert which == "forward"
    assert info.converged.all()
    # Two convolutions of 2 x 9 terms before the difference, which may leave only rounding.
    atol = rounding(torch.float64, 2 * 18, float(x.abs().max()))
    torch.testing.assert_close(info.residual, residual, rtol=0, atol=atol)


@pytest.mark.parametrize("form", FORMS)
def test_theta_zero_is_the_resnet_bit_for_bit(form: str) -> None:
    implicit = gradients(block(Theta(0.0, form)), image())
    explicit = gradients(block(ForwardEuler()), image())
    assert all(torch.equal(a, b) for a, b in zip(implicit, explicit, strict=True))


@pytest.mark.parametrize(("theta", "order"), [(0.25, 1), (0.5, 2), (1.0, 1)])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["uniform", "graded"])
def test_order_of_convergence(theta: float, order: int, form: str, kind: str) -> None:
    """On Y' = cos(t) Y (1 - Y), solved by 1 / (1 + c exp(-sin t))."""

    class Logistic:
        def f(self, t: float, y: Tensor) -> Tensor:
            return math.cos(t) * y * (1 - y)

        def during(self, t0: float, t1: float) -> "Logistic":
            return self

    c = torch.tensor([[0.3], [2.0]], dtype=torch.float64)
    scheme = Theta(theta, form, "newton_krylov", tol=1e-12)
    errors = []
    for steps in (40, 80):
        s = [k / steps for k in range(steps + 1)]
        points = s if kind == "uniform" else [(v + v**2) / 2 for v in s]
        y = integrate(scheme, Logistic(), TimeGrid(tuple(points)), 1 / (1 + c))
        errors.append(
            float((y.detach() - 1 / (1 + c * math.exp(-math.sin(1)))).abs().max())
        )
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize(
    ("form", "times"), [("midpoint", {1.25}), ("trapezoidal", {1.0, 1.5})]
)
def test_f_is_asked_for_at_the_times_of_the_form(form: str, times: set[float]) -> None:
    asked = set()

    class Recorded:
        def f(self, t: float, y: Tensor) -> Tensor:
            asked.add(t)
            return t - y / 2

    y = torch.full((1, 1), 2.0, dtype=torch.float64)
    x = Theta(0.5, form, tol=1e-13).step(Recorded(), 1.0, 1.5, y)
    assert asked == times
    # Both forms of Y' = t - Y/2 from Y(1) = 2: x = 2 + 1/2 (5/4 - (2 + x)/4).
    torch.testing.assert_close(x, torch.full_like(x, (2 + 0.625 - 0.25) / 1.125))


def test_preconditioner_saves_iterations_on_a_stiff_layer() -> None:
    """f = -L Y with a strong L: S is (I - h J)^-1 itself."""
    L = LaplacianDiffusion(2, alpha=50.0).double()

    class Stiff:
        def f(self, t: float, y: Tensor) -> Tensor:
            return torch.tanh(y) / 10 - L(y)

        def L(self, t: float) -> LaplacianDiffusion:
            return L

    told = {}
    for precondition in (False, True):
        scheme = Theta(1.0, guess="state", precondition=precondition, tol=1e-8)
        infos: list[SolveInfo] = []
        scheme.on_solve = lambda which, info, infos=infos: infos.append(info)
        y = image().requires_grad_()
        scheme.step(Stiff(), 0.0, 1.0, y).sum().backward()
        told[precondition] = infos
    forward, adjoint = (int(info.iterations.max()) for info in told[True])
    # Newton's steps are as many whoever solves for them; the adjoint is one linear solve.
    assert forward <= int(told[False][0].iterations.max())
    assert 2 * adjoint <= int(told[False][1].iterations.max())
    assert all(info.converged.all() for info in told[True])


def test_jumping_weights_stay_within_their_step() -> None:
    """Backward Euler with a module per step: each is used, the first one too."""
    found = gradients(block(Theta(1.0, "trapezoidal", tol=1e-8)), image())
    assert all(gradient.abs().max() > 1e-3 for gradient in found)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("interpolation", ["constant", "linear"])
def test_reversible_gradients_are_those_of_the_stored_ones(
    form: str, interpolation: str
) -> None:
    found = []
    for reversible in (False, True):
        scheme = Theta(0.5, form, tol=1e-11, reversible=reversible)
        network = block(scheme, steps=4, interpolation=interpolation)
        found.append(gradients(network, image()))
    # Four steps, forward, reversed and backward: twelve relative errors of tol.
    size = math.sqrt(sum(float(gradient.square().sum()) for gradient in found[0]))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=12 * scheme.tol * size)


class LiveMemory:
    """Bytes of activations that autograd holds, and the most it held at once."""

    def __init__(self, weights: WeightPath) -> None:
        self.weights = {p.data_ptr() for p in weights.parameters()}
        self.now = self.peak = 0

    def pack(self, tensor: Tensor) -> "Held":
        own = tensor.data_ptr() not in self.weights
        return Held(self, tensor.detach(), tensor.nbytes if own else 0)


class Held:
    def __init__(self, memory: LiveMemory, tensor: Tensor, size: int) -> None:
        self.memory, self.tensor, self.size = memory, tensor, size
        memory.now += size
        memory.peak = max(memory.peak, memory.now)

    def __del__(self) -> None:
        self.memory.now -= self.size


def peak_of(steps: int, reversible: bool) -> int:
    """Of forward and backward of one block, weights at two knots whatever the depth."""
    scheme = Theta(0.5, tol=1e-6, reversible=reversible)
    network = block(scheme, steps, interpolation="linear", knots=[0.0, 1.0])
    memory = LiveMemory(network.layers)
    with torch.autograd.graph.saved_tensors_hooks(
        memory.pack, lambda held: held.tensor
    ):
        gradients(network, image(2))
    return memory.peak


def test_reversible_memory_does_not_grow_with_depth() -> None:
    """64 steps hold at most 1.2 times what 8 steps hold; stored states hold 8 times."""
    assert peak_of(64, reversible=True) <= 1.2 * peak_of(8, reversible=True)
    assert peak_of(64, reversible=False) > 6 * peak_of(8, reversible=False)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"theta": -0.1}, r"theta must lie in \[0, 1\], got -0.1"),
        ({"theta": 1.5}, r"theta must lie in \[0, 1\], got 1.5"),
        ({"theta": math.nan}, "theta must lie in"),
        ({"tol": 0.0}, "tol must be > 0 and finite, got 0.0"),
        ({"tol": -1.0}, "tol must be > 0"),
        ({"max_iterations": 0}, "max_iterations must be >= 1"),
        ({"solver": "bisection"}, "solver must be one of fixed_point, anderson"),
        ({"form": "euler"}, "form must be one of midpoint, trapezoidal"),
        ({"guess": "zero"}, "guess must be one of"),
        ({"theta": 1.0, "reversible": True}, "reversible needs theta = 0.5"),
    ],
)
def test_unsound_options_are_refused(
    options: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        Theta(**options)


def test_batch_norm_in_a_layer_that_is_solved_for_is_refused() -> None:
    make: Callable[[int], nn.Module] = partial(SymmetricLayer, norm="batch")
    with pytest.raises(ValueError, match="norm=batch: the step is solved sample by"):
        DynamicBlock(2, TimeGrid((0.0, 1.0)), Theta(), make, nn.Identity)
