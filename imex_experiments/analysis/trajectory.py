"""The states of a network at every time step.

Shapes: states (B, C, H, W).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from imex_experiments.integrators import Integrator, System
from imex_experiments.networks import DynamicBlock, DynamicNet


@dataclass(frozen=True)
class Step:
    """A step of a block, from the state y at t0; called, it takes any state to t1."""

    block: int
    number: int
    t0: float
    t1: float
    y: Tensor
    system: System
    scheme: Integrator

    @property
    def name(self) -> str:
        return f"block {self.block + 1}, step {self.number + 1}"

    @property
    def h(self) -> float:
        return self.t1 - self.t0

    def f(self, y: Tensor) -> Tensor:
        """f(t0, y)."""
        return self.system.f(self.t0, y)

    def __call__(self, y: Tensor) -> Tensor:
        return self.scheme.step(self.system, self.t0, self.t1, y)


def trajectory(network: DynamicNet, images: Tensor) -> Iterator[Step]:
    """The steps of all blocks, first to last, each with the state that it starts from.

    ValueError for a scheme with a memory, whose step is no function of one state.
    """
    y, number_of_block = images, 0
    for stage in network.stages:
        if not isinstance(stage, DynamicBlock):
            y = stage(y)
            continue
        if stage.integrator.looks_back:
            name = type(stage.integrator).__name__
            raise ValueError(f"{name}: a step depends on the one before it")
        for number, (t0, t1) in enumerate(stage.grid.steps()):
            system = stage.during(t0, t1)
            step = Step(number_of_block, number, t0, t1, y, system, stage.integrator)
            yield step
            y = step(y)
        number_of_block += 1
