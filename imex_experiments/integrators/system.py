"""What a scheme is, and what it may ask of a network: the right-hand side f and L."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

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


class Integrator(ABC):
    """One scheme. It holds no weights, no step size, and no memory of a trajectory."""

    order: int
    """Order of accuracy for the problem that the class names."""

    uses_operator = False
    """The step asks for L. Where no step does, the network makes no L."""

    splits_state = False
    """f maps one half of the channels to the same (see `Verlet`)."""

    solves_samples = False
    """The samples of a batch are solved for one by one (see `Theta`)."""

    reversible = False
    """The backward pass may step back in time (see `integrate_reversibly`)."""

    looks_back = False
    """A step needs what the one before it has seen (see `SBDF2`)."""

    @abstractmethod
    def step(self, system: System, t0: float, t1: float, y: Tensor) -> Tensor:
        """Return Y(t1) from Y(t0) = y; the first step of a scheme that looks back."""

    def advance(
        self, system: System, t0: float, t1: float, y: Tensor, past: Any
    ) -> tuple[Tensor, Any]:
        """Return Y(t1), and what the next step needs to know of this one.

        `past` is what the step before has returned, None at the begin of a block.
        """
        return self.step(system, t0, t1, y), None
