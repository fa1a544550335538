"""Solvers for x = g(x) in which every sample of a batch converges by itself.

Shapes: x (B, ...), g maps (B, ...) to the same, each sample by itself. All solvers have one
signature, stop a sample once the root mean square of g(x) - x is at most `tol`, and leave
it alone from then on. Nothing here is differentiated: see `implicit_gradient`.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from imex_experiments.solvers.info import SolveInfo, dot, norm, rms, scale
from imex_experiments.solvers.krylov import Linear, gmres
from imex_experiments.solvers.linearise import Linearised, linearise

Map = Callable[[Tensor], Tensor]
Update = Callable[[Tensor, Tensor], Tensor]
Solver = Callable[..., tuple[Tensor, SolveInfo]]

NEWTON_TOL = 1e-3
"""Relative residual of the linear solve within a Newton step."""

KRYLOV_ITERATIONS = 20
"""At most so many products with the Jacobian per Newton step."""

MEMORY = 5
"""Earlier iterates that Anderson's method and L-BFGS look back to."""

HALVINGS = 12
"""Of a step of L-BFGS that does not decrease the residual."""


def fixed_point(
    func: Map,
    x0: Tensor,
    tol: float,
    max_iterations: int,
    precondition: Linear | None = None,
) -> tuple[Tensor, SolveInfo]:
    """x <- x + M (g(x) - x); without M the iteration x <- g(x)."""
    M = precondition or (lambda r: r)
    return _iterate(lambda x, r: M(r), func, x0, tol, max_iterations)


def anderson(
    func: Map,
    x0: Tensor,
    tol: float,
    max_iterations: int,
    precondition: Linear | None = None,
) -> tuple[Tensor, SolveInfo]:
    """x <- x + r - (dX + dR) c, c = argmin |r - dR c|, dX and dR the last differences.

    r is the residual M (g(x) - x). Source: Walker and Ni, Anderson acceleration for
    fixed-point iterations (2011), eq. 2.3.
    """
    M = precondition or (lambda r: r)
    seen: list[tuple[Tensor, Tensor]] = []

    def update(x: Tensor, residual: Tensor) -> Tensor:
        r = M(residual)
        seen.append((x, r))
        del seen[: -MEMORY - 1]
        if len(seen) == 1:
            return r
        xs, rs = (torch.stack([v.flatten(1) for v in vs], 2) for vs in zip(*seen))  # noqa: B905
        dX, dR = xs.diff(dim=2), rs.diff(dim=2)
        c = _least_squares(dR, r.flatten(1).unsqueeze(2))
        return r - ((dX + dR) @ c).view_as(x)

    return _iterate(update, func, x0, tol, max_iterations)


def newton_krylov(
    func: Map,
    x0: Tensor,
    tol: float,
    max_iterations: int,
    precondition: Linear | None = None,
) -> tuple[Tensor, SolveInfo]:
    """x <- x + d, (I - J) d = g(x) - x by GMRES.

    Source: Knoll and Keyes, Jacobian-free Newton-Krylov methods (2004), eqs. 3-4.
    """

    def update(x: Tensor, r: Tensor) -> Tensor:
        return newton_step(func, x, r, precondition)

    return _iterate(update, func, x0, tol, max_iterations)


def gradient_descent(
    func: Map,
    x0: Tensor,
    tol: float,
    max_iterations: int,
    precondition: Linear | None = None,
) -> tuple[Tensor, SolveInfo]:
    """x <- x + s w, w = (I - J^T) r downhill on |r|^2 / 2, r = g(x) - x.

    The step s = |w|^2 / |(I - J) w|^2 is the best one of the linearised problem.
    A preconditioner is not used.
    """

    def update(x: Tensor, r: Tensor) -> Tensor:
        J = linearise(func, x)
        w = _downhill(J, r)
        slope = dot(w - J.jvp(w), w - J.jvp(w))
        return scale(dot(w, w) / slope.clamp_min(torch.finfo(x.dtype).tiny), w)

    return _iterate(update, func, x0, tol, max_iterations)


def lbfgs(
    func: Map,
    x0: Tensor,
    tol: float,
    max_iterations: int,
    precondition: Linear | None = None,
) -> tuple[Tensor, SolveInfo]:
    """Quasi-Newton descent on |g(x) - x|^2 / 2, each sample with a step of its own.

    Two-loop recursion over the last steps, halving a step until Armijo's condition holds.
    A preconditioner is not used. Source: Nocedal and Wright, Numerical Optimization,
    Algorithms 7.4 and 3.1.
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

    return _iterate(update, func, x0, tol, max_iterations)


SOLVERS: dict[str, Solver] = {
    "fixed_point": fixed_point,
    "anderson": anderson,
    "newton_krylov": newton_krylov,
    "gradient_descent": gradient_descent,
    "lbfgs": lbfgs,
}


def newton_step(
    func: Map, x: Tensor, r: Tensor, precondition: Linear | None = None
) -> Tensor:
    """d with (I - J) d = r: from x = y it gives the solution of the linearised equation."""
    J = linearise(func, x)
    d, _ = gmres(lambda v: v - J.jvp(v), r, NEWTON_TOL, KRYLOV_ITERATIONS, precondition)
    return d


def _iterate(
    update: Update, func: Map, x0: Tensor, tol: float, max_iterations: int
) -> tuple[Tensor, SolveInfo]:
    """x <- x + update(x, g(x) - x), for the samples that have not converged yet."""
    x, r = x0, func(x0) - x0
    iterations = torch.zeros(len(x), dtype=torch.long, device=x.device)
    for _ in range(max_iterations):
        active = ~(rms(r) <= tol)  # NaN has not converged
        if not active.any():
            break
        x = torch.where(
            scale(active, torch.ones_like(x, dtype=torch.bool)), x + update(x, r), x
        )
        r = func(x) - x
        iterations += active
    return x, SolveInfo(rms(r), iterations, rms(r) <= tol)


def _least_squares(A: Tensor, b: Tensor) -> Tensor:
    """argmin |b - A c| of each sample, kept from columns that are nearly dependent."""
    gram, identity = A.mT @ A, torch.eye(A.shape[2], dtype=A.dtype, device=A.device)
    number = torch.finfo(A.dtype)
    trace = gram.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    ridge = 10 * number.eps * trace + number.tiny
    return torch.linalg.solve(gram + ridge * identity, A.mT @ b)


def _downhill(J: Linearised, r: Tensor) -> Tensor:
    """Minus the gradient of |g(x) - x|^2 / 2."""
    return r - J.vjp(r)


def _two_loops(pairs: list[tuple[Tensor, Tensor]], w: Tensor) -> Tensor:
    """H w, H the inverse Hessian as the pairs (step, change of gradient) tell it."""
    curvature = [dot(s, y) for s, y in pairs]
    rho = [torch.where(c > 0, 1 / c, 0.0) for c in curvature]  # a bad pair is left out
    shares = []
    for (s, y), p in zip(reversed(pairs), reversed(rho), strict=True):
        shares.append(p * dot(s, w))
        w = w - scale(shares[-1], y)
    if pairs:
        _, y = pairs[-1]
        gamma = curvature[-1] / dot(y, y)
        w = scale(torch.where(curvature[-1] > 0, gamma, 1.0), w)
    for (s, y), p, a in zip(pairs, rho, reversed(shares), strict=True):
        w = w + scale(a - p * dot(y, w), s)
    return w


def _armijo(func: Map, x: Tensor, r: Tensor, d: Tensor, slope: Tensor) -> Tensor:
    """The longest 2^-k with |r|^2 / 2 decreased by 1e-4 of what the slope promises."""
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
