"""Bounds on the growth of a change that hold for all inputs, from the weights alone.

A step Y - h S K^T sigma(D K Y + b) with D >= 0 and S = (I + h L)^-1 descends on a convex
function. It increases no distance in the norm |.|_A, A = I + h L, if
h |K|^2 max D max S <= 2. For L = alpha I this is the bound of Theorem 1 for
lambda = -|K|^2, because |.|_A is then the Euclidean norm up to a factor.

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
    """Return an upper bound of |K|_2 for images of any size.

    It is the smaller of two bounds. One is sqrt(|K|_1 |K|_inf), from the largest sums of
    |weights| per output and per input channel. The other is k times the largest singular
    value of the weights as a matrix (C_out, C_in k^2). Raises ValueError for neumann
    padding, which repeats pixels.
    """
    if K.padding == "neumann":
        raise ValueError("padding=neumann: its convolutions have no bound here")
    W = K.weight.detach().double()
    rows, columns = W.abs().sum((1, 2, 3)).max(), W.abs().sum((0, 2, 3)).max()
    singular = W.shape[-1] * torch.linalg.matrix_norm(W.flatten(1), ord=2)
    return min(math.sqrt(float(rows * columns)), float(singular))


def norm_scales(norm: nn.Module) -> Tensor:
    """Return the factors by which a norm scales its channels, in evaluation mode.

    Raises ValueError for a norm whose scale depends on the image.
    """
    if isinstance(norm, nn.BatchNorm2d):
        assert norm.running_var is not None
        return (norm.weight / (norm.running_var + norm.eps).sqrt()).detach().double()
    if isinstance(norm, nn.Identity):
        return torch.ones(1, dtype=torch.float64)
    raise ValueError(f"{type(norm).__name__} has no bound that holds for all images")


def layer_bound(f: nn.Module) -> float:
    """Return a Lipschitz constant of f in evaluation mode; ValueError for other layers."""
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
    """Return the largest factor by which a step with right-hand side f grows a distance.

    Distances are in the norm |.|_A, A = I + h L. A bound of 1 certifies that the step
    amplifies nothing. The bound is max(1, h Lip(f) max S - 1) for a symmetric layer, and
    1 + h Lip(f) max S for others. Raises ValueError for schemes and layers without a bound.
    """
    if not isinstance(step.scheme, ForwardEuler | Imex):
        raise ValueError(f"{type(step.scheme).__name__} has no bound here")
    h = step.h
    if isinstance(step.system, Rescaled):
        h *= float(step.system.s.detach())
    reach = h * layer_bound(f) * _solve_norm(step, h)
    if _descends(f):
        return max(1.0, reach - 1)
    return 1 + reach


def _descends(f: nn.Module) -> bool:
    """Return True if f is minus the gradient of a convex function."""
    if not isinstance(f, SymmetricLayer) or isinstance(f, ReleasedLayer):
        return False
    return bool((norm_scales(f.norm) >= 0).all())


def _solve_norm(step: Step, h: float) -> float:
    """Return max S = max 1 / (1 + h lambda) over the waves of the image."""
    if not step.scheme.uses_operator:
        return 1.0
    L = step.system.L(step.t0)
    if isinstance(L, RescaledOperator):
        L = L.operator
    if not isinstance(L, Diffusion):
        raise ValueError(f"{type(L).__name__} has no bound here")
    symbol = (L.alpha * L.symbol((step.y.shape[-2], step.y.shape[-1]))).detach()
    least = max(0.0, float(symbol.min()))  # rounding may give a small negative value
    return 1 / (1 + h * least)
