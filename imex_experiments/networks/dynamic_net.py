"""The one network that every model configuration builds."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from imex_experiments.integrators import Integrator, TimeGrid
from imex_experiments.networks.connectors import Connector, Head
from imex_experiments.networks.dynamic_block import DynamicBlock

MakeLayer = Callable[..., nn.Module]


class DynamicNet(nn.Module):
    """connector, block, connector, block, ..., head, all at full resolution.

    Shapes: (B, in_channels, H, W) to (B, out_channels, H, W); one block per width.
    `layer(channels, padding=)` makes a right-hand side and `diffusion(channels, alpha=,
    boundary=)` an operator L. `layer` and `steps` are one for all blocks or a list with one
    per block. Only the integrator tells an explicit network from an implicit one; a
    network without L has the same f, drawn from the same random numbers.
    ValueError for h <= 0, alpha < 0, steps < 1, even kernels, unknown names.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        widths: Sequence[int],
        integrator: Integrator,
        layer: MakeLayer | Sequence[MakeLayer],
        diffusion: Callable[..., nn.Module],
        steps: int | Sequence[int] = 1,
        h: float = 1.0,
        alpha: float = 1.0,
        boundary: str = "periodic",
        padding: str = "zeros",
        norm: str = "batch",
        activation: str = "relu",
    ) -> None:
        super().__init__()
        self.h, self.alpha = h, alpha if integrator.uses_operator else 0.0
        if not widths or min(widths) < 1:
            raise ValueError(
                f"widths must be one or more positive integers, got {list(widths)}"
            )
        diffusion = partial(diffusion, alpha=alpha, boundary=boundary)
        diffusion(1)  # alpha and boundary are checked for explicit networks as well
        stages: list[nn.Module] = []
        for narrow, wide, make_layer, number in zip(
            [in_channels, *widths[:-1]],
            widths,
            _per_block(layer, "layer", len(widths)),
            _per_block(steps, "steps", len(widths)),
            strict=True,
        ):
            grid = TimeGrid.uniform(h, number)
            f = partial(make_layer, padding=padding)
            stages.append(Connector(narrow, wide, 3, padding, norm, activation))
            stages.append(DynamicBlock(wide, grid, integrator, f, diffusion))
        self.stages = nn.Sequential(*stages)
        self.head = Head(widths[-1], out_channels)

    def forward(self, y: Tensor) -> Tensor:
        return self.head(self.stages(y))


def _per_block(value: Any, name: str, blocks: int) -> Sequence[Any]:
    """One value for all blocks, or a list with one per block."""
    if not isinstance(value, Sequence):
        return [value] * blocks
    if len(value) != blocks:
        raise ValueError(
            f"{name} must have one entry per width, {blocks}, got {len(value)}"
        )
    return value
