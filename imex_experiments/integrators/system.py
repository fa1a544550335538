"""What an integrator may ask of a network: the right-hand side f and the operator L."""

from typing import Protocol

from torch import Tensor


class Operator(Protocol):
    """L, positive semi-definite: `L(y)` and `L.solve(y, h)` = (I + h L)^-1 y."""

    def __call__(self, y: Tensor) -> Tensor: ...

    def solve(self, y: Tensor, h: float) -> Tensor: ...


class System(Protocol):
    """Y' = f(t, Y) with an operator L(t) that a step may treat implicitly."""

    def f(self, t: float, y: Tensor) -> Tensor: ...

    def L(self, t: float) -> Operator: ...


class Integrator(Protocol):
    """One step of a scheme, from (t0, y) to t1. It holds no weights and no step size."""

    uses_operator: bool
    """Whether the step asks for L. Where it does not, the network makes no L."""

    def step(self, system: System, t0: float, t1: float, y: Tensor) -> Tensor: ...
