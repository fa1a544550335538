"""alpha without tuning, from the size of the image and the spectrum of f."""

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
    """The eigenvalue of L / alpha on the longest waves of the image, its mean over channels.

    Those are the waves with the least positive eigenvalue of the Laplacian (eq. 7).
    """
    waves = even_symbol(laplacian()[None], size, L.boundary)[0]
    least = waves[waves > 1e-6].min()
    symbol = L.symbol(size).detach().cpu()
    symbol = symbol.expand(len(symbol), *waves.shape)
    return float(symbol[:, (waves > 1e-6) & (waves <= 1.01 * least)].mean())


def dissipative(eigenvalues: ArrayLike) -> NDArray[np.complexfloating]:
    """Those within 60 degrees of the negative axis, which a moderate alpha can serve.

    Towards the imaginary axis the bound of Theorem 1 grows without limit.
    """
    values = np.asarray(eigenvalues, dtype=complex)
    return values[-values.real >= np.abs(values) / 2]


def sufficient_alpha(eigenvalues: ArrayLike, h: float, weakest: float) -> float:
    """alpha with alpha x weakest = max(bound of Theorem 1, 1/h).

    `weakest` is the eigenvalue of L / alpha on the longest waves: all waves but the
    constant one then obey the bound for the dissipative eigenvalues, and the longest is
    halved at least, so that what a pixel knows reaches across the image.
    """
    return max(minimal_alpha(dissipative(eigenvalues), h), 1 / h) / weakest


@torch.no_grad()
def update_alphas(
    network: DynamicNet, images: Tensor, products: int = 8
) -> dict[str, float]:
    """Set every alpha that is "auto" for normalised images; the values by step.

    In the mode that the network is in. The spectrum of each f is outlined by `products`
    products with its Jacobian at the states of these images.
    """
    chosen: dict[str, float] = {}
    for step in trajectory(network, images):
        block = network.blocks[step.block]
        L = None if block.operators is None else block.operators.at(step.t0, step.t1)
        if isinstance(L, Diffusion) and isinstance(L.strength, Chosen):
            unit = 1.0 if block.unit is None else float(block.unit())
            spectrum = ritz_values(jacobian_operator(step.f, step.y), products)
            weakest = unit * longest_waves(L, (images.shape[-2], images.shape[-1]))
            alpha = sufficient_alpha(spectrum, step.h, weakest)
            L.strength.value.fill_(alpha)
            chosen[step.name] = alpha
    return chosen
