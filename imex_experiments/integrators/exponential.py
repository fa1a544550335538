"""Exponential schemes: f explicit, and the linear part -L Y integrated exactly.

Shapes: states y (B, C, ...); f and L map a state to a tensor of its shape.
"""

import torch
from torch import Tensor

from imex_experiments.integrators.system import Integrator, System


class ETD1(Integrator):
    """The exponential Euler step exp(-h L) Y + h phi(h L) f(Y) for Y' = f(Y) - L Y.

    phi(z) = (1 - exp(-z)) / z. The step is exact for a constant f. Order 1.
    Source: Cox and Matthews, Exponential time differencing for stiff systems (2002), eq. 4.
    """

    order = 1
    uses_operator = True

    def step(self, system: System, t0: float, t1: float, y: Tensor) -> Tensor:
        f, L, h = system.f, system.L(t0), t1 - t0
        decayed = L.function(y, lambda z: torch.exp(-h * z))
        return decayed + h * L.function(f(t0, y), lambda z: phi(h * z))


def phi(z: Tensor) -> Tensor:
    """Return (1 - exp(-z)) / z for z >= 0, with phi(0) = 1.

    The value and the derivative are exact to rounding. For z < 1 it is the series
    1 - z/2 (1 - z/3 (1 - ...)), because the derivative of the quotient suffers from
    cancellation.
    """
    small = z.clamp(max=1.0)
    series = torch.ones_like(z)
    for k in range(18, 1, -1):
        series = 1 - small / k * series
    large = z.clamp(min=1.0)
    return torch.where(z < 1, series, -torch.expm1(-large) / large)
