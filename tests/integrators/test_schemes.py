"""Orders of convergence and exact identities, in float64, on problems with closed forms.

Every problem is checked first: its solution must satisfy its equation.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from imex_experiments.integrators import (
    DiffusionReaction,
    ForwardEuler,
    Imex,
    Integrator,
    TimeGrid,
    integrate,
)
from imex_experiments.terms.diffusion import (
    Diffusion,
    GramDiffusion,
    IdentityDiffusion,
    LaplacianDiffusion,
)

torch_double = {"dtype": torch.float64}


@dataclass
class Problem:
    """Y' = f(t, Y) [- L Y], with L(t) beside it and the exact Y(t)."""

    right_hand_side: Callable[[float, Tensor], Tensor]
    operator: Diffusion
    exact: Callable[[float], Tensor]
    diffusive: bool

    def f(self, t: float, y: Tensor) -> Tensor:
        return self.right_hand_side(t, y)

    def L(self, t: float) -> Diffusion:
        return self.operator

    def derivative(self, t: float, y: Tensor) -> Tensor:
        return self.f(t, y) - (self.operator(y) if self.diffusive else 0)


def mode(size: int = 16) -> Tensor:
    """cos(2 pi x / size) along the columns, an eigenvector of every stencil."""
    x = torch.arange(size, **torch_double)
    return torch.cos(2 * math.pi * x / size).expand(1, 1, size, size)


def eigenvalue(L: Diffusion) -> float:
    y = mode()
    return float((L(y) * y).sum() / (y * y).sum())


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
}

SCHEMES: list[tuple[Integrator, str, int]] = [
    (ForwardEuler(), "logistic", 1),
    (ForwardEuler(), "forced", 1),
    (Imex(), "logistic", 1),
    (Imex(), "forced", 1),
    (DiffusionReaction(), "heat with source", 1),
    (DiffusionReaction(), "damped", 1),
]


@pytest.mark.parametrize("name", PROBLEMS)
def test_problem_is_solved_by_its_closed_form(name: str) -> None:
    problem, d = PROBLEMS[name], 1e-5
    for t in (0.1, 0.7):
        slope = (problem.exact(t + d) - problem.exact(t - d)) / (2 * d)
        torch.testing.assert_close(
            slope, problem.derivative(t, problem.exact(t)), atol=1e-9, rtol=0
        )


def grid(steps: int, kind: str) -> TimeGrid:
    s = np.arange(steps + 1) / steps
    return TimeGrid(tuple(s if kind == "uniform" else (s + s**2) / 2))


@pytest.mark.parametrize("kind", ["uniform", "graded"])
@pytest.mark.parametrize(
    ("scheme", "name", "order"),
    SCHEMES,
    ids=lambda v: v if isinstance(v, str) else type(v).__name__,
)
def test_order_of_convergence(
    scheme: Integrator, name: str, order: int, kind: str
) -> None:
    problem = PROBLEMS[name]
    errors = []
    for steps in (200, 400):
        y = integrate(scheme, problem, grid(steps, kind), problem.exact(0.0))
        errors.append(float((y - problem.exact(1.0)).detach().abs().max()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.1)
    assert errors[1] < 0.02


@pytest.mark.parametrize("L", [L_identity, L_laplacian, L_gram])
@pytest.mark.parametrize("h", [0.1, 1.0, 30.0])
def test_eq_6_as_printed_equals_the_step(L: Diffusion, h: float) -> None:
    """S (Y + h L Y + h f(Y)) = Y + h S f(Y)."""
    y = torch.randn(2, 1, 8, 9, **torch_double)
    problem = Problem(lambda t, y: torch.tanh(y), L, lambda t: y, diffusive=False)
    printed = L.solve(y + h * L(y) + h * torch.tanh(y), h)
    step = Imex().step(problem, 0.0, h, y)
    torch.testing.assert_close(step, printed, rtol=0, atol=1e-12)


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


def test_every_interval_is_stepped_once_and_in_order() -> None:
    seen = []

    class Recorder:
        uses_operator = False

        def step(self, system: object, t0: float, t1: float, y: Tensor) -> Tensor:
            seen.append((t0, t1))
            return y

    integrate(Recorder(), None, TimeGrid((0.0, 0.5, 2.0)), torch.zeros(1))
    assert seen == [(0.0, 0.5), (0.5, 2.0)]
