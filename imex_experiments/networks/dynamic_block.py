"""A block of layers of one width: an ODE, a scheme and a time grid."""

from collections.abc import Callable
from functools import partial
from typing import cast

from torch import Tensor, nn

from imex_experiments.integrators import Integrator, Operator, TimeGrid, integrate
from imex_experiments.terms.weight_path import StepwisePath


class DynamicBlock(nn.Module):
    """Y(t_0) to Y(t_N) of Y' = f(t, Y) with weights theta(t); (B, C, H, W) to the same.

    `layer(channels)` makes f for one step, `diffusion(channels)` makes L; the latter is
    called only if the integrator asks for an operator. Source: DynamicBlocks, sec. 2.
    """

    def __init__(
        self,
        channels: int,
        grid: TimeGrid,
        integrator: Integrator,
        layer: Callable[[int], nn.Module],
        diffusion: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        self.grid = grid
        self.integrator = integrator
        self.layers = StepwisePath(partial(layer, channels), grid.points)
        self.operators = (
            StepwisePath(partial(diffusion, channels), grid.points)
            if integrator.uses_operator
            else None
        )

    def f(self, t: float, y: Tensor) -> Tensor:
        """The right-hand side with the weights in force at t."""
        return self.layers.at(t)(y)

    def L(self, t: float) -> Operator:
        """The implicit operator in force at t."""
        assert self.operators is not None, (
            "an integrator with uses_operator = False asked for L"
        )
        return cast(Operator, self.operators.at(t))

    def forward(self, y: Tensor) -> Tensor:
        return integrate(self.integrator, self, self.grid, y)
