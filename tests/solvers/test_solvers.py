"""Solvers on small problems with known solutions, sample by sample, in float64."""

import pytest
import torch
from conftest import rounding
from torch import Tensor

from imex_experiments.solvers import SOLVERS, attach, gmres, linearise, newton_step

double = {"dtype": torch.float64}


def matrices(*spreads: float, size: int = 6) -> Tensor:
    """One matrix I - J per sample, the further from I the larger its spread."""
    torch.manual_seed(0)
    J = torch.randn(len(spreads), size, size, **double) / size**0.5
    return (
        torch.eye(size, **double) - torch.tensor(spreads, **double)[:, None, None] * J
    )


def times(A: Tensor, v: Tensor) -> Tensor:
    return (A @ v.unsqueeze(2)).squeeze(2)


def test_gmres_solves_every_sample_to_its_tolerance() -> None:
    A = matrices(1e-3, 0.5, 1.0)
    b = torch.randn(3, 6, **double)
    x, info = gmres(lambda v: times(A, v), b, 1e-10, 20)
    residual = (b - times(A, x)).norm(dim=1) / b.norm(dim=1)
    # It is not formed but updated, by at most six products with six terms each.
    updated = rounding(torch.float64, 6 * 6, float(torch.linalg.cond(A).max()))
    assert (residual <= 1e-10 + updated).all()
    torch.testing.assert_close(info.residual, residual, rtol=0, atol=updated)
    assert info.converged.all()
    assert info.iterations[0] < info.iterations[2] <= 6
    torch.testing.assert_close(x, torch.linalg.solve(A, b))


def test_gmres_with_the_inverse_as_preconditioner_needs_one_iteration() -> None:
    A = matrices(0.5, 1.0)
    b = torch.randn(2, 6, **double)
    inverse = torch.linalg.inv(A)
    x, info = gmres(lambda v: times(A, v), b, 1e-10, 20, lambda v: times(inverse, v))
    assert info.iterations.tolist() == [1, 1]
    torch.testing.assert_close(times(A, x), b)


def test_gmres_leaves_a_vanishing_right_hand_side_alone() -> None:
    A, b = matrices(0.5, 0.5), torch.randn(2, 6, **double)
    b[0] = 0
    x, info = gmres(lambda v: times(A, v), b, 1e-12, 20)
    assert not x[0].any()
    assert info.iterations[0] == 0
    assert info.converged.all()


def test_gmres_survives_an_exhausted_krylov_space() -> None:
    """A = 2 I is solved after one vector; the other sample goes on."""
    A = torch.stack([2 * torch.eye(6, **double), matrices(1.0)[0]])
    b = torch.randn(2, 6, **double)
    x, info = gmres(lambda v: times(A, v), b, 1e-12, 20)
    assert info.converged.all()
    torch.testing.assert_close(times(A, x), b)


def test_gmres_says_so_when_the_iterations_run_out() -> None:
    A, b = matrices(2.0), torch.randn(1, 6, **double)
    _, info = gmres(lambda v: times(A, v), b, 1e-12, 2)
    assert not info.converged.any()
    assert info.residual > 1e-12
    assert info.iterations.tolist() == [2]


def test_products_with_the_jacobian() -> None:
    def func(x: Tensor) -> Tensor:
        return torch.sin(x) * x.roll(1, 1)

    x, v = torch.randn(2, 1, 5, **double)
    J = torch.autograd.functional.jacobian(func, x).reshape(5, 5)
    products = linearise(func, x)
    torch.testing.assert_close(products.jvp(v), v @ J.T)
    torch.testing.assert_close(products.vjp(v), v @ J)


def test_a_function_without_x_has_no_jacobian() -> None:
    products = linearise(lambda x: torch.ones_like(x), torch.ones(1, 3))
    for product in (products.jvp, products.vjp):
        assert not product(torch.ones(1, 3)).any()


class Contraction:
    """g(x) = b + A tanh(x) per sample, |A| the harder the larger; counts its calls."""

    def __init__(self, *strengths: float) -> None:
        torch.manual_seed(1)
        J = torch.randn(len(strengths), 6, 6, **double)
        self.A = J / torch.linalg.matrix_norm(J, 2)[:, None, None]
        self.A = self.A * torch.tensor(strengths, **double)[:, None, None]
        self.b = torch.randn(len(strengths), 6, **double)
        self.calls = 0

    def __call__(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.b + times(self.A, torch.tanh(x))


@pytest.mark.parametrize("name", SOLVERS)
def test_every_sample_converges_by_itself(name: str) -> None:
    """Easy samples stop early, and what they are does not depend on the batch."""
    g = Contraction(0.05, 0.5, 0.9)
    x, info = SOLVERS[name](g, torch.zeros(3, 6, **double), 1e-9, 500)
    residual = (g(x) - x).square().mean(1).sqrt()
    # Samples may be multiplied together or one by one: sums of six terms.
    atol = rounding(torch.float64, 6, float(x.abs().max() + g.b.abs().max()))
    torch.testing.assert_close(info.residual, residual, rtol=0, atol=atol)
    assert (info.residual <= 1e-9).all()
    assert info.converged.all()
    assert info.iterations[0] < info.iterations[2]
    alone = Contraction(0.05, 0.5, 0.9)
    alone.A, alone.b = alone.A[:1], alone.b[:1]
    first, _ = SOLVERS[name](alone, torch.zeros(1, 6, **double), 1e-9, 500)
    # Both have a residual of at most sqrt(6) x 1e-9, and 1 / |I - J| <= 1 / (1 - 0.05).
    assert (first - x[:1]).norm() <= 2 * 6**0.5 * 1e-9 / (1 - 0.05)


@pytest.mark.parametrize("name", SOLVERS)
def test_samples_that_do_not_converge_are_told(name: str) -> None:
    g = Contraction(0.05, 0.9)
    _, info = SOLVERS[name](g, torch.full((2, 6), 3.0, **double), 1e-13, 2)
    assert not info.converged[1]
    assert info.residual[1] > 1e-13
    assert info.iterations[1] == 2


def test_nan_has_not_converged() -> None:
    _, info = SOLVERS["fixed_point"](
        lambda x: x * torch.nan, torch.ones(1, 2, **double), 1e-3, 4
    )
    assert not info.converged.any()


def test_newton_and_descent_converge_where_the_iteration_does_not() -> None:
    """x = b - 3 tanh(x): every fixed-point step overshoots."""
    b = torch.tensor([[1.0, -2.0]], **double)

    def g(x: Tensor) -> Tensor:
        return b - 3 * torch.tanh(x)

    found = {name: solve(g, 0 * b, 1e-10, 200) for name, solve in SOLVERS.items()}
    assert not found["fixed_point"][1].converged.any()
    for name in ("anderson", "newton_krylov", "gradient_descent", "lbfgs"):
        assert found[name][1].converged.all(), name


def test_a_good_preconditioner_saves_iterations() -> None:
    A = matrices(0.9, 0.9)
    b, inverse = torch.randn(2, 6, **double), torch.linalg.inv(A)

    def g(x: Tensor) -> Tensor:
        return x + b - times(A, x)

    for name in ("fixed_point", "anderson", "newton_krylov"):
        _, info = SOLVERS[name](g, 0 * b, 1e-9, 300, lambda v: times(inverse, v))
        assert (info.iterations <= 4).all(), name
        assert info.converged.all()


def test_linearised_guess_is_exact_for_a_linear_problem() -> None:
    A, b = matrices(0.9), torch.randn(1, 6, **double)

    def g(x: Tensor) -> Tensor:
        return x + b - times(A, x)

    y = torch.randn(1, 6, **double)
    x = y + newton_step(g, y, g(y) - y)
    assert (g(x) - x).norm() < 2e-3 * (g(y) - y).norm()


def test_attached_solution_has_the_gradients_of_the_equation() -> None:
    """x = w tanh(x) + b: dx/dw = tanh(x) / (1 - w sech^2 x), dx/db = 1 / (1 - w sech^2 x)."""
    w = torch.tensor([[0.5], [0.9]], requires_grad=True, **double)
    b = torch.tensor([[1.0], [-0.3]], requires_grad=True, **double)

    def g(x: Tensor) -> Tensor:
        return w * torch.tanh(x) + b

    with torch.no_grad():
        x, _ = SOLVERS["newton_krylov"](g, torch.zeros(2, 1, **double), 1e-14, 50)
    y = attach(g, x, 1e-14, 10)
    assert torch.equal(y, x)
    y.sum().backward()
    slope = 1 - w.detach() * (1 - torch.tanh(x) ** 2)
    torch.testing.assert_close(w.grad, torch.tanh(x) / slope)
    torch.testing.assert_close(b.grad, 1 / slope)
