"""Semi-implicit one-step schemes: f explicit, L implicit, S_h = (I + h L)^-1."""

import math

import torch
from torch import Tensor

from imex_experiments.integrators.system import Integrator, System


class Imex(Integrator):
    """Y + h S f(Y), consistent with Y' = f(Y). Order 1. Source: IMEXnet eq. 6.

    The paper prints S (Y + h L Y + h f(Y)); since S (I + h L) = I both are the same, and
    this form needs no L Y.
    """

    order = 1
    uses_operator = True

    def step(self, system: System, t0: float, t1: float, y: Tensor) -> Tensor:
        f, L, h = system.f, system.L(t0), t1 - t0
        return y + h * L.solve(f(t0, y), h)


class DiffusionReaction(Integrator):
    """S (Y + h f(Y)), consistent with Y' = f(Y) - L Y. Order 1. Source: IMEXnet eq. 11.

    The paper prints I + h f, which is Y + h f(Y).
    """

    order = 1
    uses_operator = True

    def step(self, system: System, t0: float, t1: float, y: Tensor) -> Tensor:
        f, L, h = system.f, system.L(t0), t1 - t0
        return L.solve(y + h * f(t0, y), h)


class ARS222(Integrator):
    """Two stages, stiffly accurate and L-stable in L, for Y' = f(Y) - L Y. Order 2.

    U = S_gh (Y + g h f(Y)) at t + g h, then
    S_gh (Y + h (d f(Y) + (1 - d) f(U)) - (1 - g) h L U), g = 1 - 1/sqrt(2), d = 1 - 1/(2g).
    Source: Ascher, Ruuth, Spiteri, Implicit-explicit Runge-Kutta methods for
    time-dependent PDEs (1997), sec. 2.6.
    """

    order = 2
    uses_operator = True

    def step(self, system: System, t0: float, t1: float, y: Tensor) -> Tensor:
        f, L, h = system.f, system.L(t0), t1 - t0
        g = 1 - math.sqrt(0.5)
        d = 1 - 1 / (2 * g)
        f_y = f(t0, y)
        u = L.solve(y + g * h * f_y, g * h)
        f_u = f(t0 + g * h, u)
        return L.solve(y + h * (d * f_y + (1 - d) * f_u) - (1 - g) * h * L(u), g * h)


class ETD1(Integrator):
    """exp(-h L) Y + h phi(h L) f(Y), phi(z) = (1 - exp(-z)) / z, for Y' = f(Y) - L Y.

    Exact for f = 0 and for constant f. Order 1. Source: Cox and Matthews, Exponential
    time differencing for stiff systems (2002), eq. 4.
    """

    order = 1
    uses_operator = True

    def step(self, system: System, t0: float, t1: float, y: Tensor) -> Tensor:
        f, L, h = system.f, system.L(t0), t1 - t0
        decayed = L.function(y, lambda z: torch.exp(-h * z))
        return decayed + h * L.function(f(t0, y), lambda z: phi(h * z))


def phi(z: Tensor) -> Tensor:
    """(1 - exp(-z)) / z for z >= 0, phi(0) = 1; value and derivative exact to rounding.

    Below 1 it is summed as (1 - z/2 (1 - z/3 (1 - ...))): the quotient would cancel in
    the derivative.
    """
    small = z.clamp(max=1.0)
    series = torch.ones_like(z)
    for k in range(18, 1, -1):
        series = 1 - small / k * series
    large = z.clamp(min=1.0)
    return torch.where(z < 1, series, -torch.expm1(-large) / large)
