"""Bounds that hold for all inputs, from the weights alone.

A step Y - h S K^T sigma(D K Y + b) with D >= 0 descends a convex function: it stretches no
distance in the norm |.|_A, A = I + hL, if h |K|^2 max D max S <= 2. For L = alpha I, where
|.|_A is the Euclidean norm up to a factor, that is the bound of Theorem 1 for
lambda = -|K|^2.
Shapes: kernels (C_out, C_in, k, k).
"""

import math

import torch
from torch import Tensor, nn

from imex_experiments.analysis.trajectory import Step
from imex_experiments.integrators import ForwardEuler, Imex
from imex_experiments.networks.rescaled import Rescaled, RescaledOperator
from imex_experiments.terms import DoubleLayer, ReleasedLayer, SymmetricLayer
from imex_experiments.terms.diffusion import Diffusion
from imex_experiments.terms.layers import Convolution

NON_DECREASING = (nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Identity)
"""Activations with a slope between 0 and 1."""


def convolution_norm(K: Convolution) -> float:
    """An upper bound of |K|_2, for images of any size.

    The smaller of sqrt(|K|_1 |K|_inf), sums of |weights| over rows and columns, and of k
    times the largest singular value of the weights as a matrix (C_out, C_in k^2).
    ValueError for the padding neumann, which repeats pixels.
    """
    if K.padding == "neumann":
        raise ValueError("padding=neumann: no bound of its convolutions is known here")
    W = K.weight.detach().double()
    rows, columns = W.abs().sum((1, 2, 3)).max(), W.abs().sum((0, 2, 3)).max()
    singular = W.shape[-1] * torch.linalg.matrix_norm(W.flatten(1), ord=2)
    return min(math.sqrt(float(rows * columns)), float(singular))


def norm_scales(norm: nn.Module) -> Tensor:
    """What a norm multiplies its channels by, in evaluation mode.

    ValueError for norms whose scale depends on the image.
    """
    if isinstance(norm, nn.BatchNorm2d):
        assert norm.running_var is not None
        return (norm.weight / (norm.running_var + norm.eps).sqrt()).detach().double()
    if isinstance(norm, nn.Identity):
        return torch.ones(1, dtype=torch.float64)
    raise ValueError(f"{type(norm).__name__} has no bound that holds for all images")


def layer_bound(f: nn.Module) -> float:
    """A Lipschitz constant of f in evaluation mode; ValueError for unknown layers."""
    if not isinstance(getattr(f, "activation", None), NON_DECREASING):
        raise ValueError(f"{type(f).__name__} has no bound here")
    if isinstance(f, SymmetricLayer):
        first = second = convolution_norm(f.K)
    elif type(f) is DoubleLayer:
        first, second = convolution_norm(f.K1), convolution_norm(f.K2)
    else:
        raise ValueError(f"{type(f).__name__} has no bound here")
    return first * second * float(norm_scales(f.norm).abs().max())


def step_bound(step: Step, f: nn.Module) -> float:
    """How much the step with right-hand side f can stretch a distance, at most.

    In |.|_A, A = I + hL. 1 certifies that nothing is amplified. For a symmetric layer it is
    max(1, h Lip(f) max S - 1), else 1 + h Lip(f) max S. ValueError for schemes and layers
    without a bound.
    """
    if not isinstance(step.scheme, ForwardEuler | Imex):
        raise ValueError(f"{type(step.scheme).__name__} has no bound here")
    h = step.h
    if isinstance(step.system, Rescaled):
        h *= float(step.system.s.detach())
    reach = h * layer_bound(f) * _largest_of_solve(step, h)
    if _descends(f):
        return max(1.0, reach - 1)
    return 1 + reach


def _descends(f: nn.Module) -> bool:
    if not isinstance(f, SymmetricLayer) or isinstance(f, ReleasedLayer):
        return False
    return bool((norm_scales(f.norm) >= 0).all())


def _largest_of_solve(step: Step, h: float) -> float:
    """max 1 / (1 + h lambda) over the waves of the image."""
    if not step.scheme.uses_operator:
        return 1.0
    L = step.system.L(step.t0)
    if isinstance(L, RescaledOperator):
        L = L.operator
    assert isinstance(L, Diffusion)
    symbol = (L.alpha * L.symbol((step.y.shape[-2], step.y.shape[-1]))).detach()
    least = max(0.0, float(symbol.min()))  # rounding may leave it below 0
    return 1 / (1 + h * least)
