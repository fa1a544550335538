"""Linear stability by Theorem 1 of the IMEXnet paper: bounds on alpha and h, L = alpha I.

Shapes: eigenvalues (N,) complex, lambda = -lr + i li, of the Jacobian of f.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray


def growth(eigenvalues: ArrayLike, h: float, alpha: float) -> NDArray[np.floating]:
    """Return |1 + h lambda / (1 + h alpha)|, the growth factors of an IMEX step.

    The step is Y + h S f(Y) with L = alpha I.
    """
    return np.abs(1 + h * np.asarray(eigenvalues) / (1 + h * alpha))


def minimal_alpha(eigenvalues: ArrayLike, h: float) -> float:
    """Return the least alpha >= 0 with all growth <= 1: max |lambda|^2 / (2 lr) - 1/h.

    It is infinite if an eigenvalue other than 0 has lr <= 0: no alpha stabilises it.
    Raises ValueError unless h > 0 and all eigenvalues are finite.
    Source: IMEXnet, Theorem 1.
    """
    values = np.asarray(eigenvalues, dtype=complex)
    if not (h > 0 and math.isfinite(h)):
        raise ValueError(f"h must be > 0 and finite, got {h}")
    if not np.isfinite(values).all():
        raise ValueError(f"eigenvalues must be finite, got {values}")
    values = values[values != 0]
    if not len(values):
        return 0.0
    lr = -values.real
    if lr.min() <= 0:
        return math.inf
    return max(0.0, float((np.abs(values) ** 2 / (2 * lr)).max()) - 1 / h)


def explicit_limit(eigenvalues: ArrayLike) -> float:
    """Return the largest h for which Y + h f(Y) does not amplify: min 2 lr / |lambda|^2.

    It is 0 if an eigenvalue other than 0 has lr <= 0, and infinite if all are 0.
    """
    values = np.asarray(eigenvalues, dtype=complex)
    values = values[values != 0]
    limits = -2 * values.real / np.abs(values) ** 2
    return max(0.0, float(limits.min(initial=math.inf)))
