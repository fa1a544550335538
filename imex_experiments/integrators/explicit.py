"""Explicit schemes: they evaluate f and solve nothing.

Shapes: states y (B, C, ...); f maps a state to a tensor of its shape.
"""

import torch
from torch import Tensor

from imex_experiments.integrators.system import Integrator, System


class ForwardEuler(Integrator):
    """The forward Euler step Y + h f(Y) of a residual network. Order 1. IMEXnet eq. 1."""

    order = 1

    def step(self, system: System, t0: float, t1: float, y: Tensor) -> Tensor:
        f, h = system.f, t1 - t0
        return y + h * f(t0, y)


class Midpoint(Integrator):
    """The explicit midpoint rule Y + h f(t + h/2, Y + h/2 f(t, Y)). Order 2.

    Source: Hairer, Norsett, Wanner, Solving ODEs I, eq. II.1.4 (Runge 1895).
    """

    order = 2

    def step(self, system: System, t0: float, t1: float, y: Tensor) -> Tensor:
        f, h = system.f, t1 - t0
        middle = t0 + h / 2
        return y + h * f(middle, y + h / 2 * f(t0, y))


class ClassicRK4(Integrator):
    """The classical Runge-Kutta step Y + h/6 (k1 + 2 k2 + 2 k3 + k4). Order 4.

    Source: Hairer, Norsett, Wanner, Solving ODEs I, Table II.1.2; DynamicBlocks, RK4.
    """

    order = 4

    def step(self, system: System, t0: float, t1: float, y: Tensor) -> Tensor:
        f, h = system.f, t1 - t0
        middle = t0 + h / 2
        k1 = f(t0, y)
        k2 = f(middle, y + h / 2 * k1)
        k3 = f(middle, y + h / 2 * k2)
        k4 = f(t1, y + h * k3)
        return y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


class Verlet(Integrator):
    """The Verlet (leapfrog) step for Q'' = f(t, Q), with P = Q'. Order 2.

    Y = (Q, P) holds position and velocity in the two halves of its channels. With the
    midpoint R = Q + h/2 P: P+ = P + h f(t + h/2, R) and Q+ = R + h/2 P+. One evaluation
    of f per step. Shapes: Y (B, 2 C, ...); f maps (B, C, ...) to the same.
    Source: Haber and Ruthotto, Stable architectures for deep neural networks (2017),
    sec. 4; the drift-kick-drift form of Hairer, Lubich, Wanner, Geometric Numerical
    Integration, sec. I.1.4.
    """

    order = 2
    splits_state = True

    def step(self, system: System, t0: float, t1: float, y: Tensor) -> Tensor:
        f, h = system.f, t1 - t0
        q, p = y.chunk(2, dim=1)
        q = q + h / 2 * p
        p = p + h * f(t0 + h / 2, q)
        return torch.cat([q + h / 2 * p, p], dim=1)
