"""What an integrator may ask of a network: the right-hand side f and the operator L."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from torch import Tensor


class Operator(Protocol):
    """L, positive semi-definite: `L(y)` and `L.solve(y, h)` = (I + h L)^-1 y."""

    def __call__(self, y: Tensor) -> Tensor: ...

    def solve(self, y: Tensor, h: float | Tensor) -> Tensor: ...

    def function(self, y: Tensor, g: Callable[[Tensor], Tensor]) -> Tensor:
        """g(L) y, for g of the eigenvalues of L."""


class System(Protocol):
    """Y' = f(t, Y) with an operator L(t) that a step may treat implicitly."""

    def f(self, t: float, y: Tensor) -> Tensor: ...

    def L(self, t: float) -> Operator: ...


class Dynamics(Protocol):
    """A system on a whole block, whose weights may jump between two steps."""

    def during(self, t0: float, t1: float) -> System:
        """The system of the step from t0 to t1: a jump at t1 belongs to the next step."""


class Integrator(Protocol):
    """One step of a scheme, from (t0, y) to t1. It holds no weights and no step size.

    Two optional attributes tell the block what the scheme needs: `splits_state = True`
    if f maps one half of the channels (see `Verlet`), `solves_samples = True` if the
    samples of a batch are solved for one by one (see `Theta`).
    """

    uses_operator: bool
    """Whether the step asks for L. Where it does not, the network makes no L."""

    def step(self, system: System, t0: float, t1: float, y: Tensor) -> Tensor: ...


@runtime_checkable
class Multistep(Protocol):
    """A scheme that looks back: each integration gets an integrator with a memory."""

    uses_operator: bool

    def begin(self) -> Integrator:
        """An integrator that has seen nothing yet."""
