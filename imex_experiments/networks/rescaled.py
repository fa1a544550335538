"""A system and its operator, multiplied by a trained time scale."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from torch import Tensor

from imex_experiments.integrators import Operator, System


@dataclass(frozen=True)
class Rescaled:
    """The system s f, s L: its step of size h is the step of size s h of f, L."""

    system: System
    s: Tensor

    def f(self, t: float, y: Tensor) -> Tensor:
        return self.s * self.system.f(t, y)

    def L(self, t: float) -> Operator:
        return cast(Operator, RescaledOperator(self.system.L(t), self.s))


@dataclass(frozen=True)
class RescaledOperator:
    """The operator s L."""

    operator: Operator
    s: Tensor

    def __call__(self, y: Tensor) -> Tensor:
        return self.s * self.operator(y)

    def solve(self, y: Tensor, h: float) -> Tensor:
        return self.operator.solve(y, h * self.s)

    def function(self, y: Tensor, g: Callable[[Tensor], Tensor]) -> Tensor:
        return self.operator.function(y, lambda z: g(self.s * z))
