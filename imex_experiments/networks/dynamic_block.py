"""A block of layers of one width: an ODE, a scheme, and a time grid.

Shapes: states y (B, C, H, W).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from imex_experiments.integrators import (
    Integrator,
    Operator,
    System,
    TimeGrid,
    integrate,
)
from imex_experiments.integrators.reversible import Reversible, integrate_reversibly
from imex_experiments.networks.rescaled import Rescaled
from imex_experiments.terms.positive import Chosen, Positive
from imex_experiments.terms.weight_path import (
    PATHS,
    StepwisePath,
    covers,
    refuse_batch_norm,
)


class DynamicBlock(nn.Module):
    """The map from Y(t_0) to Y(t_N) of Y' = f(t, Y), whose weights depend on time.

    `layer(channels)` returns f for one step or knot. `diffusion(channels)` returns L; it
    is called only if the integrator uses an operator. The weights of f are given at
    `knots`, by default the grid points, and are constant or linear between them. L is
    constant between knots. With `learns_time_scale` the block trains one factor, 1 at
    first, that multiplies all step sizes.

    Raises ValueError for an integrator or an operator of a foreign kind, for knots that do
    not cover the grid, for batch norm where it has no meaning, and, with a scheme that
    splits the channels, for an odd number of channels or a trained time scale.
    Source: DynamicBlocks.
    """

    def __init__(
        self,
        channels: int,
        grid: TimeGrid,
        integrator: Integrator,
        layer: Callable[[int], nn.Module],
        diffusion: Callable[[int], nn.Module],
        interpolation: str = "constant",
        knots: Sequence[float] | None = None,
        learns_time_scale: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(integrator, Integrator):
            raise ValueError(
                f"integrator must derive from integrators.Integrator, got {integrator!r}"
            )
        if interpolation not in PATHS:
            raise ValueError(
                f"interpolation must be one of {', '.join(PATHS)}, got {interpolation!r}"
            )
        self.grid = grid
        self.integrator = integrator
        tau = grid.points if knots is None else tuple(knots)
        f = partial(layer, _channels_of_f(integrator, channels))
        self.layers = PATHS[interpolation](f, tau)
        self.operators = (
            StepwisePath(partial(diffusion, channels), tau)
            if integrator.uses_operator
            else None
        )
        # Checkpoints know the module of the time scale by the name `unit`.
        self.unit: Positive | Chosen | None = (
            Positive(1.0) if learns_time_scale else None
        )
        self._check(knots)

    def _check(self, knots: Sequence[float] | None) -> None:
        grid = self.grid.points
        if not covers(self.layers.knots, grid):
            raise ValueError(
                f"knots must cover the time points, from {grid[0]} to {grid[-1]}, "
                f"got {list(self.layers.knots)}"
            )
        for L in self.operators or ():
            if not isinstance(L, Operator):
                kind = type(L).__name__
                raise ValueError(
                    f"diffusion must make an operator with solve and function, got {kind}"
                )
        if knots is not None:
            refuse_batch_norm(self.layers, "with knots a module may serve many steps")
        if self.unit is not None and self.integrator.splits_state:
            raise ValueError(
                f"h=learned: the f of {type(self.integrator).__name__} is a second "
                "derivative in time; give a number"
            )
        if self.integrator.solves_samples:
            refuse_batch_norm(self.layers, "the step is solved sample by sample")

    @property
    def time_scale(self) -> float:
        """Return the factor that multiplies all step sizes; 1 unless it is trained."""
        return 1.0 if self.unit is None else float(self.unit().detach())

    def during(self, t0: float, t1: float) -> System:
        """Return f and L of the step from t0 to t1, multiplied by the time scale."""
        step = _Step(self, t1)
        return step if self.unit is None else Rescaled(step, self.unit())

    def forward(self, y: Tensor) -> Tensor:
        if self.integrator.reversible and torch.is_grad_enabled():
            scheme, weights = cast(Reversible, self.integrator), list(self.parameters())
            return integrate_reversibly(scheme, self, self.grid, y, weights)
        return integrate(self.integrator, self, self.grid, y)


class _Step:
    """The system of one step. If weights change at its end, it uses the old ones."""

    def __init__(self, block: DynamicBlock, end: float) -> None:
        self.block = block
        self.end = end

    def f(self, t: float, y: Tensor) -> Tensor:
        return self.block.layers.at(t, self.end)(y)

    def L(self, t: float) -> Operator:
        operators = self.block.operators
        assert operators is not None, (
            "the integrator uses L but declares uses_operator = False"
        )
        return cast(Operator, operators.at(t, self.end))


def _channels_of_f(integrator: Integrator, channels: int) -> int:
    """Return the number of channels that f maps: half for a scheme that splits them.

    Raises ValueError if such a scheme gets an odd number.
    """
    if not integrator.splits_state:
        return channels
    if channels % 2:
        raise ValueError(
            f"{type(integrator).__name__} splits the channels into two halves: widths "
            f"must be even, got {channels}"
        )
    return channels // 2
