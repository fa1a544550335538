"""Spectra of a Jacobian J from products J v and J^T v, without forming J.

Shapes: functions map (B, C, H, W) to the same; vectors are such states, flattened.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imex_experiments.solvers.linearise import linearise

if TYPE_CHECKING:
    # Imported where it is used: every training imports this file, few need a spectrum.
    from scipy.sparse.linalg import LinearOperator

SMALLEST = 16
"""Up to this many unknowns J is formed, because Arnoldi's method needs a larger space."""


def jacobian_operator(func: Callable[[Tensor], Tensor], y: Tensor) -> "LinearOperator":
    """Return df/dy at y as a scipy LinearOperator.

    Its vectors are float64; the products are computed in the dtype of y.
    """
    from scipy.sparse.linalg import LinearOperator

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
    J: "LinearOperator", number: int = 12, tol: float = 1e-3
) -> NDArray[np.complexfloating]:
    """Return the `number` eigenvalues of largest modulus, by implicitly restarted Arnoldi.

    Eigenvalues that do not converge to the relative tolerance `tol` are left out. For a
    small J all eigenvalues are returned.
    """
    from scipy.sparse.linalg import ArpackNoConvergence, eigs

    size = J.shape[0]
    if size <= max(SMALLEST, number + 2):
        return np.linalg.eigvals(J @ np.eye(size)).astype(complex)
    start = np.random.default_rng(0).standard_normal(size)
    try:
        return eigs(J, number, v0=start, tol=tol, return_eigenvectors=False)
    except ArpackNoConvergence as stopped:
        return stopped.eigenvalues


def ritz_values(J: "LinearOperator", products: int = 12) -> NDArray[np.complexfloating]:
    """Return the eigenvalues of J projected onto a Krylov space of `products` dimensions.

    They outline the spectrum at the cost of one product with J per value. There are fewer
    values if the Krylov space is exhausted earlier.
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


def spectral_norm(J: "LinearOperator") -> float:
    """Return |J|_2, the largest singular value, by the Lanczos method on J^T J."""
    from scipy.sparse.linalg import svds

    size = J.shape[0]
    if size <= SMALLEST:
        return float(np.linalg.norm(J @ np.eye(size), 2))
    start = np.random.default_rng(0).standard_normal(size)
    values = svds(J, 1, v0=start, tol=1e-4, return_singular_vectors=False)
    return float(values[0])
