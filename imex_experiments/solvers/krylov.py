"""Krylov solvers for linear systems that leave the samples of a batch apart.

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
    """x with |b - A x| <= tol |b| in every sample, or the best of `max_iterations`.

    Arnoldi with modified Gram-Schmidt and Givens rotations, one Krylov space per sample,
    no restarts; with a preconditioner M from the right, A M u = b and x = M u, so that the
    residual is that of A x = b. It is told relative to |b|.
    Source: Saad and Schultz, GMRES (1986), Algorithm 4.
    """
    M = precondition or (lambda v: v)
    beta = norm(b)
    basis = [_normalised(b, beta)]
    rotations: list[tuple[Tensor, Tensor]] = []
    columns: list[list[Tensor]] = []  # of the triangular factor R
    right = [beta]  # of R u = right; |right[-1]| is the residual
    residual = _ratio(beta, beta)
    iterations = torch.zeros(len(b), dtype=torch.long, device=b.device)
    for j in range(max_iterations):
        active = ~(residual <= tol)
        if not active.any():
            break
        w = A(M(basis[j]))
        column = []
        for v in basis:
            column.append(dot(w, v))
            w = w - scale(column[-1], v)
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


def _back_substitute(columns: list[list[Tensor]], right: list[Tensor]) -> list[Tensor]:
    """u with R u = right, R by columns; 0 for a direction that R does not see."""
    u = right[: len(columns)]
    for j in reversed(range(len(columns))):
        u[j] = _ratio(u[j], columns[j][j])
        for i in range(j):
            u[i] = u[i] - columns[j][i] * u[j]
    return u


def _combine(basis: list[Tensor], u: list[Tensor], b: Tensor) -> Tensor:
    """sum_j u_j v_j."""
    x = torch.zeros_like(b)
    for share, v in zip(u, basis, strict=False):
        x = x + scale(share, v)
    return x


def _ratio(x: Tensor, beta: Tensor) -> Tensor:
    """x / beta, 0 where beta is 0: what vanishes is solved, or not seen."""
    return torch.where(beta == 0, torch.zeros_like(x), x / beta)


def _normalised(x: Tensor, length: Tensor) -> Tensor:
    """x / |x|, 0 where |x| is 0: the Krylov space of that sample is exhausted."""
    return scale(_ratio(torch.ones_like(length), length), x)
