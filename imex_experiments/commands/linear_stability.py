"""Draw the linear stability of each scheme, for a rotation and over the plane z = h lambda.

`python scripts/linear_stability.py out=<folder>` writes trajectories of Y' = (P, -Q) for
Y = (Q, P), spectral radii against h, and |R(z)| over a square, each as PNG and CSV. The exact
solution stays on a circle: a spectral radius above 1 amplifies, one below 1 damps. IMEX has
L = alpha I with `alpha=1`. Source: Reshniak and Webster, sec. 2; IMEXnet, Theorem 1.
"""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import MISSING
from torch import Tensor

from imex_experiments.config.arguments import parse_arguments
from imex_experiments.config.build import refusing
from imex_experiments.errors import ConfigError
from imex_experiments.integrators import (
    ClassicRK4,
    ForwardEuler,
    Imex,
    Integrator,
    Midpoint,
    Theta,
    Verlet,
)
from imex_experiments.plots.stability import (
    radius_figure,
    region_figure,
    trajectory_figure,
)
from imex_experiments.terms import IdentityDiffusion

BACKWARD_EULER = Theta(1.0, tol=1e-14, max_iterations=3)
TRAPEZOIDAL = Theta(0.5, tol=1e-14, max_iterations=3)


@dataclass
class Arguments:
    out: str = MISSING
    alpha: float = 1.0
    h: float = 0.5
    turns: float = 3.0
    points: int = 61


@dataclass
class Linear:
    """The system Y' = A Y with L = alpha I; A (2, 2) or (B, 2, 2), Y (B, 2)."""

    A: Tensor
    alpha: float = 0.0

    def f(self, t: float, y: Tensor) -> Tensor:
        if y.shape[1] == 1:  # Verlet: Q'' = -Q for one half of the state
            return -y
        return (self.A @ y.unsqueeze(2)).squeeze(2)

    def L(self, t: float) -> IdentityDiffusion:
        return IdentityDiffusion(1, self.alpha)


ROTATION = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
IDENTITY = torch.eye(2, dtype=torch.float64)


def spectral_radius(scheme: Integrator, h: float, alpha: float) -> float:
    """Return the spectral radius of the matrix of one step of the rotation."""
    (a, c), (b, d) = scheme.step(Linear(ROTATION, alpha), 0.0, h, IDENTITY).tolist()
    half_trace, determinant = (a + d) / 2, a * d - b * c
    discriminant = half_trace**2 - determinant
    if discriminant < 0:
        return math.sqrt(determinant)
    return abs(half_trace) + math.sqrt(discriminant)


def trajectory(scheme: Integrator, h: float, turns: float, alpha: float) -> NDArray:
    """Return Y(0) = (1, 0), Y(h), ... as rows of (Q, P)."""
    states = [IDENTITY[:1]]
    for k in range(round(2 * math.pi * turns / h)):
        t = k * h
        states.append(scheme.step(Linear(ROTATION, alpha), t, t + h, states[-1]))
    return torch.cat(states).numpy()


def growth(scheme: Integrator, z: NDArray[np.complex128], alpha: float) -> NDArray:
    """Return |R(z)| of one step with h = 1 for Y' = z Y.

    Complex numbers are vectors of the plane.
    """
    real, imaginary = (torch.from_numpy(part.ravel()) for part in (z.real, z.imag))
    rows = [torch.stack(row, 1) for row in ((real, -imaginary), (imaginary, real))]
    start = IDENTITY[:1].expand(z.size, 2)
    end = scheme.step(Linear(torch.stack(rows, 1), alpha), 0.0, 1.0, start)
    return end.norm(dim=1).view(z.shape).numpy()


def write(path: Path, names: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(rows)


def draw_rotation(
    out: Path, args: Arguments, schemes: Mapping[str, Integrator]
) -> None:
    """Draw trajectories of the rotation, and spectral radii against h."""
    paths = {
        name: trajectory(scheme, args.h, args.turns, args.alpha)
        for name, scheme in schemes.items()
    }
    trajectory_figure(paths, args.h).savefig(out / "trajectories.png", dpi=150)
    rows = [
        (name, k * args.h, *y)
        for name, path in paths.items()
        for k, y in enumerate(path)
    ]
    write(out / "trajectories.csv", ("scheme", "t", "q", "p"), rows)

    steps = np.linspace(0, 3, args.points)[1:]
    radii = {
        name: np.array([spectral_radius(scheme, h, args.alpha) for h in steps])
        for name, scheme in schemes.items()
    }
    radius_figure(steps, radii).savefig(out / "radii.png", dpi=150)
    write(out / "radii.csv", ("h", *radii), zip(steps, *radii.values(), strict=True))


def draw_regions(out: Path, args: Arguments, schemes: Mapping[str, Integrator]) -> None:
    """Draw |R(z)| of each scheme over a square of the complex plane."""
    re, im = np.linspace(-4, 2, args.points), np.linspace(-3, 3, args.points)
    z = re[None] + 1j * im[:, None]
    regions = {name: growth(scheme, z, args.alpha) for name, scheme in schemes.items()}
    region_figure(re, im, regions).savefig(out / "regions.png", dpi=150)
    columns = [values.ravel() for values in (z.real, z.imag, *regions.values())]
    names = ("re", "im", *regions)
    write(out / "regions.csv", names, zip(*columns, strict=True))


@torch.no_grad()
def main() -> None:
    args = parse_arguments(Arguments)
    with refusing("alpha"):
        IdentityDiffusion(1, args.alpha)
    if not (args.h > 0 and args.turns > 0 and args.points >= 2):
        raise ConfigError(
            f"h and turns must be > 0 and points >= 2, got h={args.h} "
            f"turns={args.turns} points={args.points}"
        )
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    schemes: dict[str, Integrator] = {
        "forward Euler": ForwardEuler(),
        "backward Euler": BACKWARD_EULER,
        "trapezoidal": TRAPEZOIDAL,
        "Verlet": Verlet(),
        f"IMEX, alpha = {args.alpha:g}": Imex(),
    }
    draw_rotation(out, args, schemes)
    del schemes["Verlet"]  # for second-order equations: it has no R(z)
    draw_regions(out, args, {**schemes, "midpoint": Midpoint(), "RK4": ClassicRK4()})
