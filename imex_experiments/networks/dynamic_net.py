"""The one network that every model configuration builds."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

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
    `boundary` is that of L and, where `padding` is None, of all convolutions.
    `checkpoint_blocks` keeps only what enters a block and computes its inside again for
    the backward pass: memory no longer grows with the steps of a block.
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
        padding: str | None = "zeros",
        norm: str = "batch",
        activation: str = "relu",
        checkpoint_blocks: bool = False,
    ) -> None:
        super().__init__()
        self.checkpoint_blocks = checkpoint_blocks
        padding = boundary if padding is None else padding
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
        for stage in self.stages:
            y = (
                self._again_in_backward(stage, y)
                if self._recomputes(stage)
                else stage(y)
            )
        return self.head(y)

    def _recomputes(self, stage: nn.Module) -> bool:
        return (
            self.checkpoint_blocks
            and torch.is_grad_enabled()
            and isinstance(stage, DynamicBlock)
        )

    @staticmethod
    def _again_in_backward(stage: nn.Module, y: Tensor) -> Tensor:
        def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
            return nullcontext(), untracked(stage)

        return checkpoint(stage, y, use_reentrant=False, context_fn=contexts)


@contextmanager
def untracked(module: nn.Module) -> Iterator[None]:
    """Batch norms that normalise as ever and leave their running averages as they are."""
    norms: list[Any] = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(batches)


def _per_block(value: Any, name: str, blocks: int) -> Sequence[Any]:
    """One value for all blocks, or a list with one per block."""
    if not isinstance(value, Sequence):
        return [value] * blocks
    if len(value) != blocks:
        raise ValueError(
            f"{name} must have one entry per width, {blocks}, got {len(value)}"
        )
    return value
