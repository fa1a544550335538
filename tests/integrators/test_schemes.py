"""Orders of convergence and exact identities, in float64, on problems with closed forms.

Every problem is checked first: its solution must satisfy its equation.
"""

import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
from conftest import rounding
from hydra.utils import get_class
from torch import Tensor

from imex_experiments.integrators import (
    ARS222,
    ETD1,
    SBDF2,
    ClassicRK4,
    ForwardEuler,
    Imex,
    ImexEuler,
    Integrator,
    Midpoint,
    TimeGrid,
    Verlet,
    integrate,
)
from imex_experiments.integrators.exponential import phi
from imex_experiments.terms.diffusion import (
    Diffusion,
    GramDiffusion,
    IdentityDiffusion,
    LaplacianDiffusion,
)

torch_double = {"dtype": torch.float64}


@dataclass
class Problem:
    """Y' = f(t, Y) [- L Y], or Q'' = f(t, Q) with Y = (Q, Q'), and the exact Y(t)."""

    right_hand_side: Callable[[float, Tensor], Tensor]
    operator: Diffusion
    exact: Callable[[float], Tensor]
    diffusive: bool
    split: bool = False

    def f(self, t: float, y: Tensor) -> Tensor:
        return self.right_hand_side(t, y)

    def L(self, t: float) -> Diffusion:
        return self.operator

    def during(self, t0: float, t1: float) -> "Problem":
        return self

    def derivative(self, t: float, y: Tensor) -> Tensor:
        if self.split:
            q, p = y.chunk(2, dim=1)
            return torch.cat([p, self.f(t, q)], dim=1)
        return self.f(t, y) - (self.operator(y) if self.diffusive else 0)


def mode(size: int = 16) -> Tensor:
    """cos(2 pi x / size) along the columns, an eigenvector of every stencil."""
    x = torch.arange(size, **torch_double)
    return torch.cos(2 * math.pi * x / size).expand(1, 1, size, size)


def eigenvalue(L: Diffusion) -> float:
    y = mode()
    return float((L(y).detach() * y).sum() / (y * y).sum())


L_laplacian = LaplacianDiffusion(1, alpha=4.0).double()
L_gram = GramDiffusion(1, alpha=2.0, init="laplacian").double()
L_identity = IdentityDiffusion(1, alpha=0.6)
rate = eigenvalue(L_laplacian)

PROBLEMS = {
    "logistic": Problem(  # Y' = Y (1 - Y); L does not enter
        lambda t, y: y * (1 - y),
        L_gram,
        lambda t: 1 / (1 + torch.exp(mode() - t)),
        diffusive=False,
    ),
    "forced": Problem(  # Y' = cos(t) Y, explicit in time
        lambda t, y: math.cos(t) * y,
        L_laplacian,
        lambda t: math.exp(math.sin(t)) * (2 + mode()),
        diffusive=False,
    ),
    "heat with source": Problem(  # Y' = Y - L Y on an eigenvector of the Laplacian
        lambda t, y: y,
        L_laplacian,
        lambda t: math.exp((1 - rate) * t) * mode(),
        diffusive=True,
    ),
    "damped": Problem(  # Y' = cos(t) - alpha Y
        lambda t, y: torch.full_like(y, math.cos(t)),
        L_identity,
        lambda t: (
            (0.6 * math.cos(t) + math.sin(t) - 0.6 * math.exp(-0.6 * t)) / (1 + 0.36)
            + math.exp(-0.6 * t) * mode()
        ),
        diffusive=True,
    ),
    "swing": Problem(  # Q'' = -t^2 Q - sin(t^2 / 2), solved by cos(t^2 / 2)
        lambda t, q: -(t**2) * q - math.sin(t**2 / 2) * mode(),
        L_identity,
        lambda t: torch.cat(
            [math.cos(t**2 / 2) * mode(), -t * math.sin(t**2 / 2) * mode()], dim=1
        ),
        diffusive=False,
        split=True,
    ),
}

EXPLICIT = ("logistic", "forced")
DIFFUSIVE = ("heat with source", "damped")
SCHEMES: list[tuple[Integrator, str]] = [
    *product((ForwardEuler(), Imex(), Midpoint(), ClassicRK4()), EXPLICIT),
    (Verlet(), "swing"),
    *product((ImexEuler(), ETD1(), ARS222(), SBDF2()), DIFFUSIVE),
]


@pytest.mark.parametrize("name", PROBLEMS)
def test_problem_is_solved_by_its_closed_form(name: str) -> None:
    problem, d = PROBLEMS[name], 1e-5
    # Errors d^2 |Y'''| / 6 and eps |Y| / d; |Y| and |Y'''| are below 10 in all problems.
    atol = 10 * (d**2 / 6 + rounding(torch.float64, 2) / d)
    for t in (0.1, 0.7):
        slope = (problem.exact(t + d) - problem.exact(t - d)) / (2 * d)
        torch.testing.assert_close(
            slope, problem.derivative(t, problem.exact(t)), atol=atol, rtol=0
        )


def grid(steps: int, kind: str) -> TimeGrid:
    s = np.arange(steps + 1) / steps
    return TimeGrid(tuple(s if kind == "uniform" else (s + s**2) / 2))


@pytest.mark.parametrize("kind", ["uniform", "graded"])
@pytest.mark.parametrize(
    ("scheme", "name"),
    SCHEMES,
    ids=lambda v: v if isinstance(v, str) else type(v).__name__,
)
def test_order_of_convergence(scheme: Integrator, name: str, kind: str) -> None:
    """It is the order that the class states."""
    problem, order = PROBLEMS[name], scheme.order
    errors = []
    coarse = 200 if order < 4 else 20  # finer grids reach rounding
    for steps in (coarse, 2 * coarse):
        y = integrate(scheme, problem, grid(steps, kind), problem.exact(0.0))
        errors.append(float((y - problem.exact(1.0)).detach().abs().max()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.1)
    assert errors[1] < 0.02


class Recorded:
    """f(t, y) = t + y / 2, and at which times and states it was asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, float]] = []

    def f(self, t: float, y: Tensor) -> Tensor:
        self.calls.append((t, float(y)))
        return t + y / 2

    def L(self, t: float) -> Diffusion:
        return L_identity  # S y = y / (1 + 0.6 h)

    def during(self, t0: float, t1: float) -> "Recorded":
        return self


G = 1 - math.sqrt(0.5)
STAGES: list[tuple[Integrator, list[tuple[float, float]]]] = [
    # From Y(1) = 2 to t = 1.5, h = 1/2: f(1, 2) = 2.
    (ForwardEuler(), [(1.0, 2.0)]),
    (Midpoint(), [(1.0, 2.0), (1.25, 2.5)]),
    (
        ClassicRK4(),
        # k1 = 2, k2 = 1.25 + 1.25 = 2.5, k3 = 1.25 + 2.625 / 2 = 2.5625
        [(1.0, 2.0), (1.25, 2.5), (1.25, 2.625), (1.5, 3.28125)],
    ),
    (Imex(), [(1.0, 2.0)]),
    (ImexEuler(), [(1.0, 2.0)]),
    (ARS222(), [(1.0, 2.0), (1 + G / 2, (2 + G) / (1 + 0.3 * G))]),
    (ETD1(), [(1.0, 2.0)]),
]


@pytest.mark.parametrize(
    ("scheme", "stages"), STAGES, ids=[type(scheme).__name__ for scheme, _ in STAGES]
)
def test_stages_are_evaluated_where_the_scheme_says(
    scheme: Integrator, stages: list[tuple[float, float]]
) -> None:
    recorded = Recorded()
    scheme.step(recorded, 1.0, 1.5, torch.full((1, 1, 1, 1), 2.0, **torch_double))
    assert [t for t, _ in recorded.calls] == pytest.approx([t for t, _ in stages])
    assert [y for _, y in recorded.calls] == pytest.approx([y for _, y in stages])


def test_verlet_evaluates_f_once_at_the_middle() -> None:
    recorded = Recorded()
    y = torch.tensor([2.0, 4.0], **torch_double).view(1, 2, 1, 1)
    moved = Verlet().step(recorded, 1.0, 1.5, y)
    assert recorded.calls == [(1.25, 3.0)]  # Q + h/2 P
    p = 4 + 0.5 * (1.25 + 1.5)
    assert moved.flatten().tolist() == [3 + 0.25 * p, p]


def test_sbdf2_evaluates_f_once_per_step_and_remembers() -> None:
    """Three steps by hand: Euler, then the formula with w = h / h- = 2 and 1/2."""
    recorded = Recorded()
    points = (0.0, 0.25, 0.75, 1.0)
    end = integrate(
        SBDF2(), recorded, TimeGrid(points), torch.ones(1, 1, 1, 1, **torch_double)
    )
    y = [1.0]
    f = [0.5]
    y.append((1 + 0.25 * f[0]) / (1 + 0.6 * 0.25))
    for n, (h, w) in enumerate([(0.5, 2.0), (0.25, 0.5)], start=1):
        f.append(points[n] + y[n] / 2)
        explicit = (1 + w) * f[n] - w * f[n - 1]
        right = (1 + w) * y[n] - w**2 / (1 + w) * y[n - 1] + h * explicit
        y.append(right / ((1 + 2 * w) / (1 + w) + 0.6 * h))
    assert [t for t, _ in recorded.calls] == list(points[:-1])
    assert [state for _, state in recorded.calls] == pytest.approx(y[:-1])
    assert float(end) == pytest.approx(y[-1])


def test_sbdf2_forgets_between_integrations() -> None:
    scheme, problem = SBDF2(), PROBLEMS["damped"]
    y = problem.exact(0.0)
    first, again = (integrate(scheme, problem, grid(3, "graded"), y) for _ in range(2))
    assert torch.equal(first, again)


def test_the_old_name_of_imex_euler_still_finds_it() -> None:
    """Stored configurations and pickles name `DiffusionReaction`."""
    assert get_class("imex_experiments.integrators.DiffusionReaction") is ImexEuler
    stored = b"cimex_experiments.integrators.semi_implicit\nDiffusionReaction\n."
    assert pickle.loads(stored) is ImexEuler


@pytest.mark.parametrize("L", [L_identity, L_laplacian, L_gram])
@pytest.mark.parametrize("kind", ["uniform", "graded"])
def test_etd1_is_exact_without_f(L: Diffusion, kind: str) -> None:
    problem = Problem(lambda t, y: 0 * y, L, lambda t: mode(), diffusive=True)
    y = integrate(ETD1(), problem, grid(4, kind), mode()).detach()
    expected = math.exp(-eigenvalue(L)) * mode()
    atol = rounding(torch.float64, 4 * 2 * (16 + 16))  # four solves
    torch.testing.assert_close(y, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("scheme", [ARS222(), ETD1(), SBDF2()])
def test_without_l_the_schemes_are_explicit(scheme: Integrator) -> None:
    """alpha = 0 leaves a two-stage Runge-Kutta, Euler, and the two-step Adams formula."""
    f = PROBLEMS["logistic"].right_hand_side
    L = GramDiffusion(1, alpha=0.0)
    problem = Problem(f, L, lambda t: mode(), diffusive=False)
    y, h = mode(), 0.5
    once = integrate(scheme, problem, TimeGrid((0.0, h)), y)
    d = 1 - 1 / (2 * G)
    stages = d * f(0, y) + (1 - d) * f(0, y + G * h * f(0, y))
    euler = y + h * f(0, y)
    expected = y + h * stages if isinstance(scheme, ARS222) else euler
    atol = rounding(torch.float64, 8, 2)  # eight terms of at most 2
    torch.testing.assert_close(once, expected, rtol=0, atol=atol)
    if isinstance(scheme, SBDF2):
        twice = integrate(scheme, problem, TimeGrid((0.0, h, 2 * h)), y)
        difference = 3 * twice - 4 * euler + y - 2 * h * (2 * f(0, euler) - f(0, y))
        atol = rounding(torch.float64, 8, 3 * 17 / 3)  # the largest is 3 x 17/3
        torch.testing.assert_close(difference, 0 * y, rtol=0, atol=atol)


def test_phi_and_its_derivative_near_and_far_from_zero() -> None:
    """Against their power series, summed in exact fractions."""
    z = torch.tensor([0.0, 1e-12, 1e-4, 0.5, 0.999, 1.0, 3.0, 20.0], **torch_double)
    z.requires_grad_()
    # 18 terms of a quotient, a product and a difference. The slope passes through them
    # twice; from z = 1 on it is the difference of two quotients that are 4 times as large.
    rel = rounding(torch.float64, 18 * 3)
    value = phi(z)
    (slope,) = torch.autograd.grad(value.sum(), z)
    for x, v, s in zip(z.tolist(), value.tolist(), slope.tolist(), strict=True):
        terms = [Fraction(1)]
        for k in range(1, 120):
            terms.append(terms[-1] * Fraction(-x) / (k + 1))
        exact = float(sum(terms))
        derivative = -sum(
            Fraction(k + 1) * Fraction(-x) ** k / math.factorial(k + 2)
            for k in range(120)
        )
        assert v == pytest.approx(exact, rel=rel)
        assert s == pytest.approx(float(derivative), rel=2 * 4 * rel)


@pytest.mark.parametrize("L", [L_identity, L_laplacian, L_gram])
@pytest.mark.parametrize("h", [0.1, 1.0, 30.0])
def test_eq_6_as_printed_equals_the_step(L: Diffusion, h: float) -> None:
    """S (Y + h L Y + h f(Y)) = Y + h S f(Y)."""
    y = torch.randn(2, 1, 8, 9, **torch_double)
    problem = Problem(lambda t, y: torch.tanh(y), L, lambda t: y, diffusive=False)
    printed = L.solve(y + h * L(y) + h * torch.tanh(y), h)
    step = Imex().step(problem, 0.0, h, y)
    # Two transforms, of h L Y, which is the larger the stiffer.
    size = float((y + h * L(y)).detach().abs().max())
    atol = rounding(torch.float64, 2 * 2 * (8 + 9), 1 + size)
    torch.testing.assert_close(step, printed, rtol=0, atol=atol)


@pytest.mark.parametrize("lr", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("li", [0.0, 0.5, 3.0])
def test_theorem_1(lr: float, li: float) -> None:
    """With L = alpha I the step amplifies iff alpha < |lambda|^2 / (2 lr) - 1 / h."""
    h = 2.0
    bound = (lr**2 + li**2) / (2 * lr) - 1 / h

    def growth(alpha: float) -> float:
        rotation = torch.tensor([[-lr, -li], [li, -lr]], **torch_double)
        y = torch.tensor([1.0, 0.0], **torch_double)
        problem = Problem(
            lambda t, y: rotation @ y,
            IdentityDiffusion(1, alpha),
            lambda t: y,
            diffusive=False,
        )
        return float(Imex().step(problem, 0.0, h, y).norm())

    if bound > 0:
        assert growth(bound * 0.99) > 1
    assert growth(max(bound, 0.0) + 1e-6) <= 1


@pytest.mark.parametrize(
    "points", [(0.0,), (0.0, 0.0), (1.0, 0.5), (0.0, math.nan), (0.0, math.inf)]
)
def test_unsound_time_points_are_refused(points: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="time points must be finite and increasing"):
        TimeGrid(points)


@pytest.mark.parametrize("h", [0.0, -1.0, math.nan, math.inf])
def test_unsound_step_size_is_refused(h: float) -> None:
    with pytest.raises(ValueError, match="h must be > 0 and finite, got"):
        TimeGrid.uniform(h, 3)


def test_a_block_needs_a_step() -> None:
    with pytest.raises(ValueError, match="steps must be >= 1, got 0"):
        TimeGrid.uniform(1.0, 0)


def test_geometric_steps_grow_by_their_ratio_over_the_same_time() -> None:
    points = TimeGrid.geometric(0.5, 4, 2.0).points
    assert points == pytest.approx([0, 2 / 15, 6 / 15, 14 / 15, 2.0])
    assert TimeGrid.geometric(0.3, 3, 1.0) == TimeGrid.uniform(0.3, 3)
    with pytest.raises(ValueError, match="ratio must be > 0 and finite, got 0"):
        TimeGrid.geometric(0.5, 4, 0.0)


def test_refined_grid_keeps_its_points() -> None:
    grid = TimeGrid((0.0, 0.3, 1.0))
    finer = grid.refined(3)
    assert finer.points[::3] == grid.points
    assert finer.points == pytest.approx([0, 0.1, 0.2, 0.3, 8 / 15, 23 / 30, 1])
    with pytest.raises(ValueError, match="factor must be >= 1, got 0"):
        grid.refined(0)


def test_every_interval_is_stepped_once_and_in_order() -> None:
    seen = []

    class Recorder(Integrator):
        order = 0

        def step(self, system: object, t0: float, t1: float, y: Tensor) -> Tensor:
            seen.append((t0, t1))
            return y

    problem = PROBLEMS["logistic"]
    integrate(Recorder(), problem, TimeGrid((0.0, 0.5, 2.0)), torch.zeros(1))
    assert seen == [(0.0, 0.5), (0.5, 2.0)]
