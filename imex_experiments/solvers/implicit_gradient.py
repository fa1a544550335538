"""Differentiate the solution x of x = g(x) by the implicit function theorem.

Shapes: x (B, ...); g maps (B, ...) to the same, each sample by itself.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from imex_experiments.solvers.info import SolveInfo
from imex_experiments.solvers.krylov import Linear, gmres
from imex_experiments.solvers.linearise import vjp

Report = Callable[[SolveInfo], None]


def attach(
    func: Callable[[Tensor], Tensor],
    x: Tensor,
    tol: float,
    max_iterations: int,
    precondition: Linear | None = None,
    report: Report | None = None,
) -> Tensor:
    """Return the solution x of x = g(x), differentiable in all tensors that g uses.

    The backward pass solves (I - J^T) v = c by GMRES to tol |c|, where c is the gradient
    of x and J the Jacobian of g at x. Then it takes the vector-Jacobian product of one
    evaluation of g with v. The iterations that found x are not differentiated.
    `precondition` is a symmetric preconditioner of I - J, hence one of I - J^T. `report`
    receives the `SolveInfo` of the backward solve. Once differentiable.
    Source: Reshniak and Webster, eq. 10; Bai, Kolter, Koltun, DEQ (2019), Theorem 1.
    """
    if not torch.is_grad_enabled():
        return x
    point = x.detach().requires_grad_()
    value = func(point)

    def adjoint(c: Tensor) -> Tensor:
        def A(v: Tensor) -> Tensor:
            return v - vjp(value, point, v)

        v, info = gmres(A, c, tol, max_iterations, precondition)
        if report is not None:
            report(info)
        return v

    return _Attach.apply(value, x, adjoint)


class _Attach(torch.autograd.Function):
    """Return x in the forward pass; pass adjoint(gradient) to `value` in the backward."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, x: Tensor, adjoint: Linear) -> Tensor:
        ctx.adjoint = adjoint
        return x.detach().clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, c: Tensor) -> tuple[Tensor, None, None]:
        return ctx.adjoint(c), None, None
