"""The derivative of a solution by the implicit function theorem.

Shapes: x (B, ...), g maps (B, ...) to the same, each sample by itself.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from imex_experiments.solvers.info import SolveInfo
from imex_experiments.solvers.krylov import Linear, gmres
from imex_experiments.solvers.linearise import pull_back

Report = Callable[[SolveInfo], None]


def attach(
    func: Callable[[Tensor], Tensor],
    x: Tensor,
    tol: float,
    max_iterations: int,
    precondition: Linear | None = None,
    report: Report | None = None,
) -> Tensor:
    """The solution x of x = g(x), differentiable in everything that g was made of.

    Backward of a gradient c: one GMRES solve of (I - J^T) v = c, to tol |c|, then v goes
    through one evaluation of g; how x was found is not differentiated. A symmetric
    preconditioner of I - J is one of I - J^T. Once differentiable.
    Source: Reshniak and Webster, eq. 10; Bai, Kolter, Koltun, DEQ (2019), Theorem 1.
    """
    if not torch.is_grad_enabled():
        return x
    point = x.detach().requires_grad_()
    value = func(point)

    def adjoint(c: Tensor) -> Tensor:
        def A(v: Tensor) -> Tensor:
            return v - pull_back(value, point, v)

        v, info = gmres(A, c, tol, max_iterations, precondition)
        if report is not None:
            report(info)
        return v

    return _Attach.apply(value, x, adjoint)


class _Attach(torch.autograd.Function):
    """x forward; backward, what `adjoint` makes of the gradient goes to `value`."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, x: Tensor, adjoint: Linear) -> Tensor:
        ctx.adjoint = adjoint
        return x.detach().clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, c: Tensor) -> tuple[Tensor, None, None]:
        return ctx.adjoint(c), None, None
