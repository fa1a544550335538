"""Implicit schemes: a step solves a nonlinear equation with f.

Shapes: y (B, ...); each sample of the batch is solved separately.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from imex_experiments.integrators.reversible import Reversible
from imex_experiments.integrators.system import System
from imex_experiments.solvers import SOLVERS, SolveInfo, attach, newton_step

Map = Callable[[Tensor], Tensor]
Precondition = Callable[[Tensor], Tensor] | None


class Theta(Reversible):
    """The theta method. Order 2 for theta = 1/2, else order 1.

    `form="midpoint"`: Y+ = Y + h f(t + theta h, (1-theta) Y + theta Y+).
    `form="trapezoidal"`: Y+ = Y + h ((1-theta) f(t, Y) + theta f(t + h, Y+)).
    theta = 0 is forward Euler and needs no solve; theta = 1 is backward Euler.

    Forward pass: `solver` iterates until the root mean square of the residual of every
    sample is at most `tol`, or for `max_iterations`. It starts from the solution of the
    linearised equation (`guess="linearised"`) or from Y (`guess="state"`).
    Backward pass: one linear solve by the implicit function theorem; the iterations are
    not differentiated.

    `precondition` uses (I + theta h L)^-1 as preconditioner of both solves.
    `reversible`, for theta = 1/2 only, stores only the last state of a block. The backward
    pass recomputes the others backwards in time, to `tol`.
    `on_solve`, if set, is called with "forward" or "adjoint" and the `SolveInfo` of every
    solve.

    Raises ValueError for theta outside [0, 1], tol <= 0, max_iterations < 1 and unknown
    names. Source: Reshniak and Webster, eq. 7, and their code.
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
            return func(y)  # no values to solve with; FLOPs count one evaluation of f
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
        """Return x, the known end of the step from y, with the gradients of the step."""
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
        """Return the map g whose fixed point g(x) = x is Y+."""
        f, h, theta = system.f, t1 - t0, self.theta
        if self.form == "midpoint":
            t = t0 + theta * h
            return lambda x: y + h * f(t, (1 - theta) * y + theta * x)
        known = y if theta == 1 else y + (1 - theta) * h * f(t0, y)
        return lambda x: known + theta * h * f(t1, x)

    def _preconditioner(self, system: System, t0: float, t1: float) -> Precondition:
        """Return the product with (I + theta h L)^-1, or None."""
        h = t1 - t0
        # In a step back in time h < 0, and I + theta h L may be singular.
        if not self.uses_operator or h < 0:
            return None
        L = system.L(t0)
        return lambda v: L.solve(v, self.theta * h)

    def _report(self, direction: str, info: SolveInfo) -> None:
        if self.on_solve is not None:
            self.on_solve(direction, info)
