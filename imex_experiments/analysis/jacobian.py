"""Spectra of Jacobians that are never formed, from products J v and J^T v.

Shapes: functions map (B, C, H, W) to the same; vectors are such states, flattened.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs, svds
from torch import Tensor

from imex_experiments.solvers.linearise import linearise

SMALLEST = 16
"""Up to this many unknowns a Jacobian is formed: Arnoldi wants room."""


def jacobian_operator(func: Callable[[Tensor], Tensor], y: Tensor) -> LinearOperator:
    """df/dy at y as an operator of scipy, float64 outside and the dtype of y inside."""
    J = linearise(func, y)

    def product(apply: Callable[[Tensor], Tensor]) -> Callable[[NDArray], NDArray]:
        def call(v: NDArray) -> NDArray:
            state = torch.from_numpy(np.ascontiguousarray(v)).to(y).view_as(y)
            return apply(state).detach().double().cpu().numpy().ravel()

        return call

    shape = (y.numel(), y.numel())
    return LinearOperator(
        shape, matvec=product(J.jvp), rmatvec=product(J.vjp), dtype=np.float64
    )


def eigenvalues(
    J: LinearOperator, number: int = 12, tol: float = 1e-3
) -> NDArray[np.complexfloating]:
    """The `number` eigenvalues of largest modulus, by implicitly restarted Arnoldi.

    Those that converged to `tol`, relatively; all of them for small J.
    """
    size = J.shape[0]
    if size <= max(SMALLEST, number + 2):
        return np.linalg.eigvals(J @ np.eye(size)).astype(complex)
    start = np.random.default_rng(0).standard_normal(size)
    try:
        return eigs(J, number, v0=start, tol=tol, return_eigenvectors=False)
    except ArpackNoConvergence as stopped:
        return stopped.eigenvalues


def ritz_values(J: LinearOperator, products: int = 12) -> NDArray[np.complexfloating]:
    """Eigenvalues of J on a Krylov space, one product each: a cheap outline of the spectrum.

    Source: Arnoldi (1951); Saad, Numerical Methods for Large Eigenvalue Problems, sec. 6.2.
    """
    q = np.random.default_rng(0).standard_normal(J.shape[0])
    basis = [q / np.linalg.norm(q)]
    H = np.zeros((products + 1, products))
    for j in range(products):
        w = J @ basis[j]
        for i, q in enumerate(basis):
            H[i, j] = q @ w
            w = w - H[i, j] * q
        H[j + 1, j] = np.linalg.norm(w)
        if H[j + 1, j] <= 1e-7 * np.abs(H).max():
            return np.linalg.eigvals(H[: j + 1, : j + 1]).astype(complex)
        basis.append(w / H[j + 1, j])
    return np.linalg.eigvals(H[:products]).astype(complex)


def spectral_norm(J: LinearOperator) -> float:
    """|J|_2, the largest singular value, by Lanczos on J^T J."""
    size = J.shape[0]
    if size <= SMALLEST:
        return float(np.linalg.norm(J @ np.eye(size), 2))
    start = np.random.default_rng(0).standard_normal(size)
    values = svds(J, 1, v0=start, tol=1e-4, return_singular_vectors=False)
    return float(values[0])
