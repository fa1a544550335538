"""Interfaces between a scheme and a network: the integrator, f, L, and the system.

Shapes: states y (B, C, ...); f and L map a state to a tensor of the same shape.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Operator(Protocol):
    """A positive semi-definite linear operator L: `L(y)` returns L y.

    It need not derive from any class; `terms.Diffusion` is one that has a symbol.
    """

    def __call__(self, y: Tensor) -> Tensor: ...

    def solve(self, y: Tensor, h: float | Tensor) -> Tensor:
        """Return (I + h L)^-1 y."""

    def function(self, y: Tensor, g: Callable[[Tensor], Tensor]) -> Tensor:
        """Return g(L) y; g maps a tensor of eigenvalues of L elementwise."""


class System(Protocol):
    """An ODE with right-hand side f(t, Y) and an operator L(t) for implicit steps."""

    def f(self, t: float, y: Tensor) -> Tensor: ...

    def L(self, t: float) -> Operator: ...


class Dynamics(Protocol):
    """The ODE of a whole block, whose weights may jump between two steps."""

    def during(self, t0: float, t1: float) -> System:
        """Return the system of the step from t0 to t1, with weights from before t1."""


class Integrator(ABC):
    """The base class of all schemes.

    A scheme holds no weights, no step size, and no state of a trajectory. The class
    attributes declare its order and what it needs.
    """

    order: int
    """Order of accuracy for the problem that the class names."""

    uses_operator = False
    """True if a step uses L. Otherwise the network builds no L."""

    splits_state = False
    """True if f acts on one half of the channels (see `Verlet`)."""

    solves_samples = False
    """True if a step solves each sample of a batch separately (see `Theta`)."""

    reversible = False
    """True if the backward pass steps back in time (see `integrate_reversibly`)."""

    looks_back = False
    """True if a step uses values of the step before (see `SBDF2`)."""

    @abstractmethod
    def step(self, system: System, t0: float, t1: float, y: Tensor) -> Tensor:
        """Return Y(t1) for Y(t0) = y.

        A scheme with `looks_back` does here the first step of a block.
        """

    def advance(
        self, system: System, t0: float, t1: float, y: Tensor, past: Any
    ) -> tuple[Tensor, Any]:
        """Return Y(t1), and the values of this step that the next step uses.

        `past` holds the values of the step before. It is None at the start of a block.
        """
        return self.step(system, t0, t1, y), None
