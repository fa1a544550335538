"""A system in another unit of time."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from torch import Tensor

from imex_experiments.integrators import Operator, System


@dataclass(frozen=True)
class Rescaled:
    """s f and s L: a step of h in the new unit is the step of h s in the old one."""

    system: System
    s: Tensor

    def f(self, t: float, y: Tensor) -> Tensor:
        return self.s * self.system.f(t, y)

    def L(self, t: float) -> Operator:
        return cast(Operator, RescaledOperator(self.system.L(t), self.s))


@dataclass(frozen=True)
class RescaledOperator:
    """s L."""

    operator: Operator
    s: Tensor

    def __call__(self, y: Tensor) -> Tensor:
        return self.s * self.operator(y)

    def solve(self, y: Tensor, h: float) -> Tensor:
        return self.operator.solve(y, h * self.s)

    def function(self, y: Tensor, g: Callable[[Tensor], Tensor]) -> Tensor:
        return self.operator.function(y, lambda z: g(self.s * z))
