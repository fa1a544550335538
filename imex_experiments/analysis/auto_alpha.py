"""Choose alpha without tuning, from the image size and the spectrum of the Jacobian of f.

Shapes: images (B, C, H, W); eigenvalues (N,) complex.
"""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from imex_experiments.analysis.jacobian import jacobian_operator, ritz_values
from imex_experiments.analysis.stability import minimal_alpha
from imex_experiments.analysis.trajectory import trajectory
from imex_experiments.networks import DynamicNet
from imex_experiments.operators.stencils import even_symbol, laplacian
from imex_experiments.terms.diffusion import Diffusion
from imex_experiments.terms.positive import Chosen


def longest_waves(L: Diffusion, size: tuple[int, int]) -> float:
    """Return the eigenvalue of L / alpha on the longest waves, the mean over channels.

    The longest waves are those with the least positive eigenvalue of the Laplacian
    (IMEXnet eq. 7).
    """
    waves = even_symbol(laplacian()[None], size, L.boundary)[0]
    least = waves[waves > 1e-6].min()
    symbol = L.symbol(size).detach().cpu()
    symbol = symbol.expand(len(symbol), *waves.shape)
    return float(symbol[:, (waves > 1e-6) & (waves <= 1.01 * least)].mean())


def dissipative(eigenvalues: ArrayLike) -> NDArray[np.complexfloating]:
    """Return the eigenvalues within 60 degrees of the negative real axis.

    For these a moderate alpha satisfies the bound of Theorem 1. Towards the imaginary axis
    the bound grows without limit.
    """
    values = np.asarray(eigenvalues, dtype=complex)
    return values[-values.real >= np.abs(values) / 2]


def sufficient_alpha(eigenvalues: ArrayLike, h: float, weakest: float) -> float:
    """Return the alpha with alpha x weakest = max(bound of Theorem 1, 1/h).

    `weakest` is the eigenvalue of L / alpha on the longest waves. With this alpha all
    waves but the constant one satisfy the bound for the dissipative eigenvalues. The solve
    at least halves the longest waves, so that a pixel influences the whole image.
    """
    return max(minimal_alpha(dissipative(eigenvalues), h), 1 / h) / weakest


@torch.no_grad()
def update_alphas(
    network: DynamicNet, images: Tensor, products: int = 8
) -> dict[str, float]:
    """Set every alpha that is "auto", and return the new values by the name of the step.

    `images` are normalised. The spectrum of each f is approximated by Ritz values from
    `products` products with its Jacobian, at the states of these images. The network stays
    in its mode, training or evaluation.
    """
    chosen: dict[str, float] = {}
    if not any(isinstance(module, Chosen) for module in network.modules()):
        return chosen
    for step in trajectory(network, images):
        block = network.blocks[step.block]
        L = None if block.operators is None else block.operators.at(step.t0, step.t1)
        if isinstance(L, Diffusion) and isinstance(L.strength, Chosen):
            spectrum = ritz_values(jacobian_operator(step.f, step.y), products)
            weakest = block.time_scale * longest_waves(
                L, (images.shape[-2], images.shape[-1])
            )
            alpha = sufficient_alpha(spectrum, step.h, weakest)
            L.strength.value.fill_(alpha)
            chosen[step.name] = alpha
    return chosen
