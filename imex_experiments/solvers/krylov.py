"""Krylov solvers for a batch of independent linear systems A x = b.

Shapes: b and x (B, ...); A maps (B, ...) to the same, linearly, each sample by itself.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from imex_experiments.solvers.info import SolveInfo, dot, norm, scale

Linear = Callable[[Tensor], Tensor]


def gmres(
    A: Linear,
    b: Tensor,
    tol: float,
    max_iterations: int,
    precondition: Linear | None = None,
) -> tuple[Tensor, SolveInfo]:
    """Return x with |b - A x| <= tol |b| in every sample, and the report of the solve.

    After `max_iterations`, x is the best that was found. The reported residual is
    |b - A x| / |b|. Each sample has its own Krylov space, without restarts; the basis comes
    from Arnoldi's method with modified Gram-Schmidt, the triangular system from Givens
    rotations. A preconditioner M applies from the right: A M u = b, x = M u.
    Source: Saad and Schultz, GMRES (1986), Algorithm 4.
    """
    M = precondition or (lambda v: v)
    beta = norm(b)
    basis = [_normalised(b, beta)]
    rotations: list[tuple[Tensor, Tensor]] = []
    columns: list[list[Tensor]] = []  # columns of the triangular factor R
    right = [beta]  # right-hand side of R u = right; |right[-1]| is the residual
    residual = _ratio(beta, beta)
    iterations = torch.zeros(len(b), dtype=torch.long, device=b.device)
    for j in range(max_iterations):
        active = ~(residual <= tol)
        if not active.any():
            break
        w, column = _orthogonalised(A(M(basis[j])), basis)
        length = norm(w)
        basis.append(_normalised(w, length))
        for i, (c, s) in enumerate(rotations):
            above, below = column[i : i + 2]
            column[i], column[i + 1] = c * above + s * below, c * below - s * above
        hypotenuse = torch.hypot(column[j], length)
        c, s = _ratio(column[j], hypotenuse), _ratio(length, hypotenuse)
        rotations.append((c, s))
        columns.append([*column[:j], hypotenuse])
        right[j:] = [c * right[j], -s * right[j]]
        residual = _ratio(right[-1].abs(), beta)
        iterations += active
    x = _combine(basis, _back_substitute(columns, right), b)
    return M(x), SolveInfo(residual, iterations, residual <= tol)


def _orthogonalised(w: Tensor, basis: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Return w without its parts along the vectors of the basis, and their coefficients."""
    coefficients = []
    for v in basis:
        coefficients.append(dot(w, v))
        w = w - scale(coefficients[-1], v)
    return w, coefficients


def _back_substitute(columns: list[list[Tensor]], right: list[Tensor]) -> list[Tensor]:
    """Return u with R u = right, R given by columns; u_j = 0 where R_jj = 0."""
    u = right[: len(columns)]
    for j in reversed(range(len(columns))):
        u[j] = _ratio(u[j], columns[j][j])
        for i in range(j):
            u[i] = u[i] - columns[j][i] * u[j]
    return u


def _combine(basis: list[Tensor], u: list[Tensor], b: Tensor) -> Tensor:
    """Return sum_j u_j v_j for the vectors v_j of the basis."""
    x = torch.zeros_like(b)
    for coefficient, v in zip(u, basis, strict=False):
        x = x + scale(coefficient, v)
    return x


def _ratio(x: Tensor, beta: Tensor) -> Tensor:
    """Return x / beta, and 0 where beta is 0.

    beta is 0 if the right-hand side of a sample is zero, or if its Krylov space is complete.
    In both cases 0 adds nothing to the solution.
    """
    return torch.where(beta == 0, torch.zeros_like(x), x / beta)


def _normalised(x: Tensor, length: Tensor) -> Tensor:
    """Return x / |x|, and 0 where |x| is 0: that sample's Krylov space is complete."""
    return scale(_ratio(torch.ones_like(length), length), x)
