"""Implicit schemes: f itself is solved for."""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from imex_experiments.integrators.system import Integrator, System
from imex_experiments.solvers import SOLVERS, SolveInfo, attach, newton_step

Map = Callable[[Tensor], Tensor]
Precondition = Callable[[Tensor], Tensor] | None


class Theta(Integrator):
    """Forward Euler at theta = 0, order 2 at 1/2, backward Euler at 1; order 1 elsewhere.

    `form="midpoint"`: Y+ = Y + h f(t + theta h, (1-theta) Y + theta Y+);
    `form="trapezoidal"`: Y+ = Y + h ((1-theta) f(t, Y) + theta f(t + h, Y+)).

    Y+ is found by `solver` from the linearised equation's solution (`guess="linearised"`)
    or from Y (`guess="state"`), until the root mean square of the residual of every sample
    is at most `tol`, in at most `max_iterations`. Backward is one linear solve, never the
    iterations. `precondition` puts (I + theta h L)^-1 before both. `reversible` (theta =
    1/2 alone) keeps no state but the last: the backward pass steps back in time, exact to
    `tol`. `on_solve` is told of every solve.
    ValueError for theta outside of [0, 1], tol <= 0, max_iterations < 1, unknown names.
    Source: Reshniak and Webster, eq. 7, and their code.
    """

    solves_samples = True

    def __init__(
        self,
        theta: float = 0.5,
        form: Literal["midpoint", "trapezoidal"] = "midpoint",
        solver: Literal[
            "fixed_point", "anderson", "newton_krylov", "gradient_descent", "lbfgs"
        ] = "newton_krylov",
        guess: Literal["linearised", "state"] = "linearised",
        tol: float = 1e-4,
        max_iterations: int = 30,
        precondition: bool = False,
        reversible: bool = False,
    ) -> None:
        if not 0 <= theta <= 1:
            raise ValueError(f"theta must lie in [0, 1], got {theta}")
        if not (tol > 0 and math.isfinite(tol)):
            raise ValueError(f"tol must be > 0 and finite, got {tol}")
        if max_iterations < 1:
            raise ValueError(f"max_iterations must be >= 1, got {max_iterations}")
        if reversible and theta != 0.5:
            raise ValueError(f"reversible needs theta = 0.5, got theta = {theta}")
        for name, value, choices in (
            ("form", form, ("midpoint", "trapezoidal")),
            ("solver", solver, tuple(SOLVERS)),
            ("guess", guess, ("linearised", "state")),
        ):
            if value not in choices:
                raise ValueError(
                    f"{name} must be one of {', '.join(choices)}, got {value!r}"
                )
        self.order = 2 if theta == 0.5 else 1
        self.theta, self.form, self.guess = theta, form, guess
        self.solve = SOLVERS[solver]
        self.tol, self.max_iterations = tol, max_iterations
        self.uses_operator = precondition
        self.reversible = reversible
        self.on_solve: Callable[[str, SolveInfo], None] | None = None

    def step(self, system: System, t0: float, t1: float, y: Tensor) -> Tensor:
        if self.theta == 0:
            return y + (t1 - t0) * system.f(t0, y)
        func = self._map(system, t0, t1, y)
        if y.is_meta:
            return func(y)  # there are no values to solve for; counts as one evaluation
        with torch.no_grad():
            S = self._preconditioner(system, t0, t1)
            x0 = y
            if self.guess == "linearised":
                x0 = y + newton_step(func, y, func(y) - y, S)
            x, info = self.solve(func, x0, self.tol, self.max_iterations, S)
        self._report("forward", info)
        return self._attach(func, x, S)

    def attach(
        self, system: System, t0: float, t1: float, y: Tensor, x: Tensor
    ) -> Tensor:
        """The end x of the step from y, known already, with the gradients of the step."""
        func = self._map(system, t0, t1, y)
        return self._attach(func, x, self._preconditioner(system, t0, t1))

    def _attach(self, func: Map, x: Tensor, S: Precondition) -> Tensor:
        return attach(
            func,
            x,
            self.tol,
            self.max_iterations,
            S,
            report=lambda info: self._report("adjoint", info),
        )

    def _map(self, system: System, t0: float, t1: float, y: Tensor) -> Map:
        """The map of which Y+ is the fixed point."""
        f, h, theta = system.f, t1 - t0, self.theta
        if self.form == "midpoint":
            t = t0 + theta * h
            return lambda x: y + h * f(t, (1 - theta) * y + theta * x)
        known = y if theta == 1 else y + (1 - theta) * h * f(t0, y)
        return lambda x: known + theta * h * f(t1, x)

    def _preconditioner(self, system: System, t0: float, t1: float) -> Precondition:
        h = t1 - t0
        if (
            not self.uses_operator or h < 0
        ):  # backwards in time I + theta h L may vanish
            return None
        L = system.L(t0)
        return lambda v: L.solve(v, self.theta * h)

    def _report(self, which: str, info: SolveInfo) -> None:
        if self.on_solve is not None:
            self.on_solve(which, info)
