"""Iterate over the time steps of a network, with the state before each step.

Shapes: states (B, C, H, W).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from imex_experiments.integrators import Integrator, System
from imex_experiments.networks import DynamicBlock, DynamicNet


@dataclass(frozen=True)
class Step:
    """One step of a block from t0 to t1, with the state y at t0.

    Calling it with any state at t0 returns the state at t1. A multistep scheme raises
    ValueError then, because its step depends on more than one state.
    """

    block: int
    number: int
    t0: float
    t1: float
    y: Tensor
    system: System
    scheme: Integrator

    @property
    def name(self) -> str:
        """Return a name for tables: "block 1, step 1" is the first step."""
        return f"block {self.block + 1}, step {self.number + 1}"

    @property
    def h(self) -> float:
        """Return the step size t1 - t0."""
        return self.t1 - self.t0

    def f(self, y: Tensor) -> Tensor:
        """Return f(t0, y)."""
        return self.system.f(self.t0, y)

    def __call__(self, y: Tensor) -> Tensor:
        if self.scheme.looks_back:
            name = type(self.scheme).__name__
            raise ValueError(f"{name}: a step depends on the one before it")
        return self.scheme.step(self.system, self.t0, self.t1, y)


def trajectory(network: DynamicNet, images: Tensor) -> Iterator[Step]:
    """Yield the steps of all blocks, first to last, each with the state before it."""
    y, number_of_block = images, 0
    for stage in network.stages:
        if not isinstance(stage, DynamicBlock):
            y = stage(y)
            continue
        scheme, past = stage.integrator, None
        for number, (t0, t1) in enumerate(stage.grid.steps()):
            system = stage.during(t0, t1)
            yield Step(number_of_block, number, t0, t1, y, system, scheme)
            y, past = scheme.advance(system, t0, t1, y, past)
        number_of_block += 1
