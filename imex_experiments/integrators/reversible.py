"""The time loop of reversible schemes, whose memory does not grow with the steps."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from imex_experiments.integrators.integrate import integrate
from imex_experiments.integrators.system import Dynamics, Integrator, System
from imex_experiments.integrators.time_grid import TimeGrid


class Reversible(Integrator):
    """A scheme that can be symmetric: a step from t1 back to t0 undoes the one to t1."""

    @abstractmethod
    def attach(
        self, system: System, t0: float, t1: float, y: Tensor, x: Tensor
    ) -> Tensor:
        """Return x, the known end of the step from y, with the gradients of the step."""


def integrate_reversibly(
    integrator: Reversible,
    system: Dynamics,
    grid: TimeGrid,
    y: Tensor,
    weights: Sequence[Tensor],
) -> Tensor:
    """Return the result of `integrate`, and store only Y(t_N) for the backward pass.

    The backward pass recomputes the states by steps back in time from Y(t_N), to the
    tolerance of the scheme. It differentiates one step at a time. `weights` are all
    tensors that the system uses; once differentiable.
    Source: Reshniak and Webster, sec. 3.3.
    """
    trained = [weight for weight in weights if weight.requires_grad]
    return _Reversible.apply(integrator, system, grid, y, *trained)


class _Reversible(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        integrator: Reversible,
        system: Dynamics,
        grid: TimeGrid,
        y: Tensor,
        *weights: Tensor,
    ) -> Tensor:
        end = integrate(integrator, system, grid, y)
        ctx.integrator, ctx.system, ctx.grid, ctx.weights = (
            integrator,
            system,
            grid,
            weights,
        )
        ctx.save_for_backward(end)
        return end

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, c: Tensor) -> tuple[Any, ...]:
        y1 = ctx.saved_tensors[0].detach()
        totals: list[Tensor | None] = [None] * len(ctx.weights)
        for t0, t1 in reversed(list(ctx.grid.steps())):
            system = ctx.system.during(t0, t1)
            y0 = ctx.integrator.step(system, t1, t0, y1).detach().requires_grad_()
            with torch.enable_grad():
                end = ctx.integrator.attach(system, t0, t1, y0, y1)
            c, *gradients = torch.autograd.grad(
                end, (y0, *ctx.weights), c, allow_unused=True
            )
            for i, gradient in enumerate(gradients):
                if gradient is not None:
                    before = totals[i]
                    totals[i] = gradient if before is None else before + gradient
            y1 = y0.detach()
        return None, None, None, c, *totals
