"""The Jacobian of a function at a point, as products."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Linearised:
    """J = dg/dx at a point: `jvp(v)` = J v and `vjp(v)` = J^T v, from one evaluation of g."""

    jvp: Callable[[Tensor], Tensor]
    vjp: Callable[[Tensor], Tensor]


def linearise(func: Callable[[Tensor], Tensor], x: Tensor) -> Linearised:
    """The products with the Jacobian of func at x.

    J v is the derivative of u -> J^T u in the direction v, so that func needs reverse mode
    alone.
    """
    with torch.enable_grad():
        point = x.detach().requires_grad_()
        value = func(point)
        u = torch.zeros_like(value, requires_grad=True)
        pulled = pull_back(value, point, u, create_graph=True)
    return Linearised(
        jvp=lambda v: pull_back(pulled, u, v), vjp=lambda v: pull_back(value, point, v)
    )


def pull_back(
    output: Tensor, at: Tensor, weights: Tensor, create_graph: bool = False
) -> Tensor:
    """The derivative of <weights, output>; 0 if the output does not depend on the point."""
    if not output.requires_grad:
        return torch.zeros_like(at)
    (gradient,) = torch.autograd.grad(
        output,
        at,
        weights,
        retain_graph=True,
        create_graph=create_graph,
        allow_unused=True,
        materialize_grads=True,
    )
    return gradient
