"""The network of all models but the U-Net: stem, blocks with connectors, head.

Shapes: images and features (B, C, H, W).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from itertools import pairwise
from statistics import fmean
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from imex_experiments.integrators import Integrator, Operator, TimeGrid
from imex_experiments.networks.connectors import HEADS, Connector
from imex_experiments.networks.dynamic_block import DynamicBlock
from imex_experiments.terms.constraints import constrain
from imex_experiments.terms.diffusion import Alpha
from imex_experiments.terms.positive import FIRST_H

MakeLayer = Callable[..., nn.Module]


class DynamicNet(nn.Module):
    """A residual network: (connector, block) for each width, and a head.

    Shapes: (B, in_channels, H, W) to (B, out_channels, H, W) for `head="dense"`, to
    (B, out_channels) for `head="classes"`.

    Terms. `layer(channels, padding=)` returns a right-hand side f. `diffusion(channels,
    alpha=, boundary=)` returns an operator L. `layer` and `steps` are one value for all
    blocks, or a list with one value per block. `integrator` alone decides if a network has
    an L. Networks with and without L draw the same f from the same random numbers.
    `constraint()` returns a parametrisation for the convolutions of f.

    Time. A block takes `steps` steps of size h. With `ratio` r each step is r times the one
    before, over the same total time. `times` gives the time points instead. h = "learned"
    trains one step size per block. alpha = "learned" trains one value per step and channel;
    alpha = "auto" is set by a callback during training.

    Weights. There is one module per step, or one per knot of `knots` with `interpolation`
    between. `time_penalty` multiplies the roughness of these weights in the loss.

    Connectors. The first one is the stem, with kernel size `opening`; the others have
    kernel size `connector`, and a `pool` that halves the image. `norm`, `activation` and
    `bias` apply to all connectors, `bias` also to the head. `closing` is the width of one
    more connector, without pool, between the last block and the head.

    `boundary` is the boundary of L, and of all convolutions if `padding` is None.
    `checkpoint_blocks` stores only the input of each block and recomputes the block in the
    backward pass, so that memory does not grow with the steps of a block.

    Raises ValueError for h <= 0, alpha < 0, steps < 1, even kernels, unknown names, and
    for times or knots that do not increase.
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
        h: float | Literal["learned"] = 1.0,
        alpha: Alpha = 1.0,
        ratio: float = 1.0,
        times: Sequence[float] | None = None,
        knots: Sequence[float] | None = None,
        interpolation: Literal["constant", "linear"] = "constant",
        time_penalty: float = 0.0,
        boundary: str = "periodic",
        padding: str | None = "zeros",
        norm: str = "batch",
        activation: str = "relu",
        checkpoint_blocks: bool = False,
        opening: int = 3,
        connector: int = 3,
        pool: Literal["none", "average", "max"] = "none",
        head: Literal["dense", "classes"] = "dense",
        bias: bool = False,
        constraint: Callable[[], nn.Module] | None = None,
        closing: int | None = None,
    ) -> None:
        super().__init__()
        _check(widths, closing, time_penalty, pool, head)
        self.checkpoint_blocks, self.time_penalty = checkpoint_blocks, time_penalty
        self.first_h = FIRST_H if isinstance(h, str) else float(h)
        padding = boundary if padding is None else padding
        diffusion = _fixed("diffusion", diffusion, alpha=alpha, boundary=boundary)
        diffusion(1)  # checks alpha and boundary, even if no step uses L
        connect = partial(
            Connector, padding=padding, norm=norm, activation=activation, bias=bias
        )
        stages: list[nn.Module] = []
        layers = _per_block(layer, "layer", len(widths))
        numbers = _per_block(steps, "steps", len(widths))
        ends = pairwise([in_channels, *widths])
        for (narrow, wide), make, number in zip(ends, layers, numbers, strict=True):
            grid = _grid(self.first_h, number, ratio, times)
            f = _fixed("layer", make, padding=padding)
            size, halved = (connector, pool) if stages else (opening, "none")
            stages.append(connect(narrow, wide, size, pool=halved))
            stages.append(
                DynamicBlock(
                    *(wide, grid, integrator, f, diffusion, interpolation, knots),
                    learns_time_scale=h == "learned",
                )
            )
            if constraint is not None:
                constrain(stages[-1], constraint)
        if closing is not None:
            stages.append(connect(widths[-1], closing, connector))
        self.stages = nn.Sequential(*stages)
        self.head = HEADS[head](closing or widths[-1], out_channels, bias)

    @property
    def h(self) -> float:
        """Return the step size; if it is learned, its mean over the blocks."""
        return self.first_h * fmean(block.time_scale for block in self.blocks)

    @property
    def alpha(self) -> float | None:
        """Return the mean of alpha over channels and steps; 0 without L.

        None if no L has an alpha.
        """
        alphas = [
            float(torch.as_tensor(L.alpha).detach().double().mean())
            for L in self.operators
            if hasattr(L, "alpha")
        ]
        if not alphas:
            return None if self.operators else 0.0
        return fmean(alphas)

    @property
    def operators(self) -> list[Operator]:
        """Return every L, first step to last; an empty list in an explicit network."""
        paths = [
            block.operators for block in self.blocks if block.operators is not None
        ]
        return [cast(Operator, L) for path in paths for L in path]

    @property
    def blocks(self) -> list[DynamicBlock]:
        """Return the blocks, first to last."""
        return [stage for stage in self.stages if isinstance(stage, DynamicBlock)]

    def penalty(self) -> Tensor | None:
        """Return `time_penalty` x the roughness of all weights; None for a factor of 0."""
        if self.time_penalty == 0:
            return None
        roughness = [block.layers.roughness() for block in self.blocks]
        return self.time_penalty * torch.stack(roughness).sum()

    def forward(self, y: Tensor) -> Tensor:
        for stage in self.stages:
            y = self._checkpointed(stage, y) if self._recomputes(stage) else stage(y)
        return self.head(y)

    def _recomputes(self, stage: nn.Module) -> bool:
        return (
            self.checkpoint_blocks
            and torch.is_grad_enabled()
            and isinstance(stage, DynamicBlock)
        )

    @staticmethod
    def _checkpointed(stage: nn.Module, y: Tensor) -> Tensor:
        """Return stage(y), and compute it again in the backward pass.

        The second time, batch norms must not update their running averages again.
        """

        def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
            return nullcontext(), untracked(stage)

        return checkpoint(stage, y, use_reentrant=False, context_fn=contexts)


@contextmanager
def untracked(module: nn.Module) -> Iterator[None]:
    """Keep batch norms from updating their running averages; they normalise as before."""
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


def _check(
    widths: Sequence[int],
    closing: int | None,
    time_penalty: float,
    pool: str,
    head: str,
) -> None:
    if not widths or min(widths) < 1:
        raise ValueError(
            f"widths must be one or more positive integers, got {list(widths)}"
        )
    if closing is not None and closing < 1:
        raise ValueError(f"closing must be null or a positive integer, got {closing}")
    if not (time_penalty >= 0 and math.isfinite(time_penalty)):
        raise ValueError(f"time_penalty must be >= 0 and finite, got {time_penalty}")
    if head not in HEADS:
        raise ValueError(f"head must be one of {', '.join(HEADS)}, got {head!r}")
    if pool != "none" and head == "dense":
        raise ValueError(f"pool={pool}: a dense head needs the resolution of the input")


def _grid(
    h: float, steps: int, ratio: float, times: Sequence[float] | None
) -> TimeGrid:
    """Return the time points of a block: those given, or `steps` steps of mean size h."""
    return (
        TimeGrid.geometric(h, steps, ratio) if times is None else TimeGrid(tuple(times))
    )


def _fixed(name: str, make: Callable[..., Any], **arguments: Any) -> Callable[..., Any]:
    """Return partial(make, **arguments).

    Raises ValueError for an argument that `make` itself sets, which would be lost.
    """
    for key in getattr(make, "keywords", {}).keys() & arguments:
        raise ValueError(
            f"{name}.{key} would be lost: give {key} to the network itself"
        )
    return partial(make, **arguments)


def _per_block(value: Any, name: str, blocks: int) -> Sequence[Any]:
    """Return one value per block, from one value for all or a list of one for each.

    Raises ValueError for a list of another length.
    """
    if not isinstance(value, Sequence):
        return [value] * blocks
    if len(value) != blocks:
        raise ValueError(
            f"{name} must have one entry per width, {blocks}, got {len(value)}"
        )
    return value
