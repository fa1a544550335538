"""Products with the Jacobian J of a function, without forming J.

Shapes: x, v (B, ...); J v and J^T v (B, ...).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Linearised:
    """A function g linearised at a point: `jvp(v)` = J v and `vjp(v)` = J^T v, J = dg/dx."""

    jvp: Callable[[Tensor], Tensor]
    vjp: Callable[[Tensor], Tensor]


def linearise(func: Callable[[Tensor], Tensor], x: Tensor) -> Linearised:
    """Return the products with the Jacobian of func at x, from one evaluation of func.

    Only reverse-mode differentiation is used: u -> J^T u is linear, so J v is the
    vector-Jacobian product of that map with v.
    """
    with torch.enable_grad():
        point = x.detach().requires_grad_()
        value = func(point)
        u = torch.zeros_like(value, requires_grad=True)
        transposed = vjp(value, point, u, create_graph=True)
    return Linearised(
        jvp=lambda v: vjp(transposed, u, v), vjp=lambda v: vjp(value, point, v)
    )


def vjp(output: Tensor, at: Tensor, v: Tensor, create_graph: bool = False) -> Tensor:
    """Return the vector-Jacobian product J^T v, J the derivative of `output` in `at`.

    It is 0 if the output does not depend on `at`. The graph of the output is retained.
    """
    if not output.requires_grad:
        return torch.zeros_like(at)
    (gradient,) = torch.autograd.grad(
        output,
        at,
        v,
        retain_graph=True,
        create_graph=create_graph,
        allow_unused=True,
        materialize_grads=True,
    )
    return gradient
