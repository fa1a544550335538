"""Solvers for x = g(x) in which every sample of a batch converges by itself.

A solver drives the residual r = g(x) - x to zero. It stops a sample once the root mean
square of r is at most `tol`, and does not change that sample again. A method is the part
in which solvers differ: the change of x in one iteration. Solvers are not differentiable;
`implicit_gradient` differentiates their result. J is the Jacobian of g at x.

Shapes: x, r (B, ...); g maps (B, ...) to the same, each sample by itself.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from imex_experiments.solvers.info import SolveInfo, dot, norm, rms, scale
from imex_experiments.solvers.krylov import Linear, gmres
from imex_experiments.solvers.linearise import Linearised, linearise

Map = Callable[[Tensor], Tensor]
Update = Callable[[Tensor, Tensor], Tensor]
"""The change of x in an iteration, from x and r = g(x) - x."""

Method = Callable[[Map, Linear], Update]
"""Returns the update for g and a preconditioner M, an approximate (I - J)^-1."""

Solver = Callable[..., tuple[Tensor, SolveInfo]]
"""`solve` with a method: (g, x0, tol, max_iterations, precondition=None)."""

NEWTON_TOL = 1e-3
"""Relative residual of the linear solve within a Newton step."""

KRYLOV_ITERATIONS = 20
"""Maximum number of products with the Jacobian per Newton step."""

MEMORY = 5
"""Number of earlier iterates that Anderson's method and L-BFGS use."""

HALVINGS = 12
"""Maximum number of halvings of an L-BFGS step that does not decrease |r| enough."""


def solve(
    method: Method,
    func: Map,
    x0: Tensor,
    tol: float,
    max_iterations: int,
    precondition: Linear | None = None,
) -> tuple[Tensor, SolveInfo]:
    """Return x with rms(g(x) - x) <= tol in every sample, and the report of the solve.

    Iterates x <- x + update(x, g(x) - x) from x0. The reported residual is the root mean
    square of g(x) - x.
    """
    update = method(func, precondition or (lambda r: r))
    x, r = x0, func(x0) - x0
    iterations = torch.zeros(len(x), dtype=torch.long, device=x.device)
    for _ in range(max_iterations):
        active = ~(rms(r) <= tol)  # NaN has not converged
        if not active.any():
            break
        moving = scale(active, torch.ones_like(x, dtype=torch.bool))
        x = torch.where(moving, x + update(x, r), x)
        r = func(x) - x
        iterations += active
    return x, SolveInfo(rms(r), iterations, rms(r) <= tol)


def fixed_point(func: Map, M: Linear) -> Update:
    """Iterate x <- x + M r; without a preconditioner that is x <- g(x)."""
    return lambda x, r: M(r)


def anderson(func: Map, M: Linear) -> Update:
    """Accelerate the fixed-point iteration x <- x + s with s = M r.

    x <- x + s - (dX + dS) c with c = argmin |s - dS c|. dX and dS hold the differences of
    the last iterates and of their s. Source: Walker and Ni, Anderson acceleration for
    fixed-point iterations (2011), eq. 2.3.
    """
    history: list[tuple[Tensor, Tensor]] = []

    def update(x: Tensor, r: Tensor) -> Tensor:
        s = M(r)
        history.append((x, s))
        del history[: -MEMORY - 1]
        if len(history) == 1:
            return s
        xs, ss = (
            torch.stack([v.flatten(1) for v in vs], 2)
            for vs in zip(*history, strict=True)
        )
        dX, dS = xs.diff(dim=2), ss.diff(dim=2)
        c = _least_squares(dS, s.flatten(1).unsqueeze(2))
        return s - ((dX + dS) @ c).view_as(x)

    return update


def newton_krylov(func: Map, M: Linear) -> Update:
    """Take Newton steps x <- x + d, (I - J) d = r, with GMRES for the linear system.

    Source: Knoll and Keyes, Jacobian-free Newton-Krylov methods (2004), eqs. 3-4.
    """
    return lambda x, r: newton_step(func, x, r, M)


def gradient_descent(func: Map, M: Linear) -> Update:
    """Descend on |r|^2 / 2: x <- x + a w with w = (I - J^T) r.

    The step a = |w|^2 / |(I - J) w|^2 minimises the linearised problem along w. The
    preconditioner is not used.
    """

    def update(x: Tensor, r: Tensor) -> Tensor:
        J = linearise(func, x)
        w = _downhill(J, r)
        curvature = dot(w - J.jvp(w), w - J.jvp(w))
        return scale(dot(w, w) / curvature.clamp_min(torch.finfo(x.dtype).tiny), w)

    return update


def lbfgs(func: Map, M: Linear) -> Update:
    """Descend on |r|^2 / 2 by L-BFGS: x <- x + 2^-k H w with w = (I - J^T) r.

    H, the inverse Hessian, comes from the last steps by the two-loop recursion. Each
    sample halves its step until Armijo's condition holds. The preconditioner is not used.
    Source: Nocedal and Wright, Numerical Optimization, Algorithms 7.4 and 3.1.
    """
    pairs: list[tuple[Tensor, Tensor]] = []
    last: list[tuple[Tensor, Tensor]] = []

    def update(x: Tensor, r: Tensor) -> Tensor:
        w = _downhill(linearise(func, x), r)
        if last:
            ((x_before, w_before),) = last
            pairs.append((x - x_before, w_before - w))
            del pairs[:-MEMORY]
        last[:] = [(x, w)]
        d = _two_loops(pairs, w)
        return scale(_armijo(func, x, r, d, dot(w, d)), d)

    return update


METHODS: tuple[Method, ...] = (
    fixed_point,
    anderson,
    newton_krylov,
    gradient_descent,
    lbfgs,
)

SOLVERS: dict[str, Solver] = {
    method.__name__: partial(solve, method) for method in METHODS
}
"""The solvers by the names that a configuration uses."""


def newton_step(
    func: Map, x: Tensor, r: Tensor, precondition: Linear | None = None
) -> Tensor:
    """Return d with (I - J) d = r: x + d solves the equation linearised at x.

    GMRES stops at the relative residual NEWTON_TOL.
    """
    J = linearise(func, x)
    d, _ = gmres(lambda v: v - J.jvp(v), r, NEWTON_TOL, KRYLOV_ITERATIONS, precondition)
    return d


def _least_squares(A: Tensor, b: Tensor) -> Tensor:
    """Return argmin |b - A c| of each sample, regularised for nearly dependent columns."""
    gram, identity = A.mT @ A, torch.eye(A.shape[2], dtype=A.dtype, device=A.device)
    number = torch.finfo(A.dtype)
    trace = gram.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    ridge = 10 * number.eps * trace + number.tiny
    return torch.linalg.solve(gram + ridge * identity, A.mT @ b)


def _downhill(J: Linearised, r: Tensor) -> Tensor:
    """Return (I - J^T) r, the negative gradient of |g(x) - x|^2 / 2."""
    return r - J.vjp(r)


def _two_loops(pairs: list[tuple[Tensor, Tensor]], w: Tensor) -> Tensor:
    """Return H w, H the inverse Hessian from pairs (step, change of the gradient)."""
    curvature = [dot(s, y) for s, y in pairs]
    # A pair without positive curvature is left out, sample by sample.
    rho = [torch.where(c > 0, 1 / c, 0.0) for c in curvature]
    first_loop = []
    for (s, y), p in zip(reversed(pairs), reversed(rho), strict=True):
        first_loop.append(p * dot(s, w))
        w = w - scale(first_loop[-1], y)
    if pairs:
        _, y = pairs[-1]
        gamma = curvature[-1] / dot(y, y)
        w = scale(torch.where(curvature[-1] > 0, gamma, 1.0), w)
    for (s, y), p, a in zip(pairs, rho, reversed(first_loop), strict=True):
        w = w + scale(a - p * dot(y, w), s)
    return w


def _armijo(func: Map, x: Tensor, r: Tensor, d: Tensor, slope: Tensor) -> Tensor:
    """Return the largest 2^-k, (B,), that satisfies Armijo's condition along d.

    |r|^2 / 2 must decrease by at least 1e-4 x 2^-k x slope.
    """
    step = torch.ones_like(slope)
    before = norm(r).square() / 2
    for _ in range(HALVINGS):
        moved = x + scale(step, d)
        after = norm(func(moved) - moved).square() / 2
        enough = after <= before - 1e-4 * step * slope
        if enough.all():
            break
        step = torch.where(enough, step, step / 2)
    return step
