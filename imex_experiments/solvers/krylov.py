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

    Arnoldi with modified Gram-Schmidt, one Krylov space per sample, no restarts; with a
    preconditioner M from the right, A M u = b and x = M u, so that the residual is that of
    A x = b. The residual is told relative to |b|.
    Source: Saad and Schultz, GMRES (1986), Algorithm 4.
    """
    M = precondition or (lambda v: v)
    size = len(b)
    beta = norm(b)
    basis = [_normalised(b, beta)]
    H = b.new_zeros(size, max_iterations + 1, max_iterations)
    right = torch.zeros_like(H[:, :, :1])
    right[:, 0, 0] = beta
    coefficients = H[:, :0, :0] @ right[:, :0]
    residual = torch.where(beta > 0, 1.0, beta)
    iterations = torch.zeros(size, dtype=torch.long, device=b.device)
    for j in range(max_iterations):
        active = ~(residual <= tol)
        if not active.any():
            break
        w = A(M(basis[j]))
        for i, v in enumerate(basis):
            H[:, i, j] = dot(w, v)
            w = w - scale(H[:, i, j], v)
        H[:, j + 1, j] = norm(w)
        basis.append(_normalised(w, H[:, j + 1, j]))
        small, known = H[:, : j + 2, : j + 1], right[:, : j + 2]
        coefficients = torch.linalg.pinv(small) @ known
        residual = _ratio(norm(known - small @ coefficients), beta)
        iterations += active
    x = torch.zeros_like(b)
    for i in range(coefficients.shape[1]):
        x = x + scale(coefficients[:, i, 0], basis[i])
    return M(x), SolveInfo(residual, iterations, residual <= tol)


def _ratio(x: Tensor, beta: Tensor) -> Tensor:
    """x / beta, 0 where beta is 0: a sample whose right-hand side vanishes is solved."""
    return torch.where(beta == 0, torch.zeros_like(x), x / beta)


def _normalised(x: Tensor, length: Tensor) -> Tensor:
    """x / |x|, 0 where |x| is 0: the Krylov space of that sample is exhausted."""
    return scale(_ratio(torch.ones_like(length), length), x)
