"""Semi-implicit one-step schemes: f is explicit, L is implicit.

S or S_h is the implicit solve (I + h L)^-1. A step solves one or more linear systems with
it, and no nonlinear one.

Shapes: states y (B, C, ...); f and L map a state to a tensor of its shape.
"""

import math

from torch import Tensor

from imex_experiments.integrators.system import Integrator, System


class Imex(Integrator):
    """The step Y + h S f(Y) of IMEXnet, consistent with Y' = f(Y). Order 1.

    It is linearly implicit: a Rosenbrock-type Euler step, whose (I - h J)^-1 has -L in
    place of the Jacobian J of f. L stabilises the step and does not appear in the ODE.
    The paper prints S (Y + h L Y + h f(Y)). Since S (I + h L) = I, both forms are equal,
    and this one needs no L Y. Source: IMEXnet eq. 6.
    """

    order = 1
    uses_operator = True

    def step(self, system: System, t0: float, t1: float, y: Tensor) -> Tensor:
        f, L, h = system.f, system.L(t0), t1 - t0
        return y + h * L.solve(f(t0, y), h)


class ImexEuler(Integrator):
    """The implicit-explicit Euler step S (Y + h f(Y)) for Y' = f(Y) - L Y. Order 1.

    It is IMEX(1,1,1) of Ascher, Ruuth, Spiteri (1997): forward Euler for f, backward Euler
    for L. The IMEXnet paper calls it the diffusion-reaction network and prints I + h f for
    Y + h f(Y). Source: IMEXnet eq. 11.
    """

    order = 1
    uses_operator = True

    def step(self, system: System, t0: float, t1: float, y: Tensor) -> Tensor:
        f, L, h = system.f, system.L(t0), t1 - t0
        return L.solve(y + h * f(t0, y), h)


DiffusionReaction = ImexEuler
"""The name of `ImexEuler` in the paper and in stored configurations."""


class ARS222(Integrator):
    """The two-stage IMEX Runge-Kutta scheme (2,2,2) for Y' = f(Y) - L Y. Order 2.

    U = S_gh (Y + g h f(Y)) at the time t + g h, then
    Y+ = S_gh (Y + h (d f(Y) + (1 - d) f(U)) - (1 - g) h L U),
    with g = 1 - 1/sqrt(2) and d = 1 - 1/(2g). Its implicit part is L-stable and stiffly
    accurate. Source: Ascher, Ruuth, Spiteri, Implicit-explicit Runge-Kutta methods for
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
