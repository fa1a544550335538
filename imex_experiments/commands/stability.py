"""Draw and measure the stability of Theorem 1 of IMEXnet.

`python scripts/stability.py out=<folder>` writes

- `regions.png`: the eigenvalues that an IMEX step with L = alpha I does not amplify, for
  `alphas=[0,1,3,10]` and a step `h=1`, with the spectrum of a random symmetric layer;
- `atlas.png`: the growth of a small perturbation over 10 steps of this layer, over alpha and
  h, with the limits of Theorem 1 and of explicit steps.

`run=<run>` uses the layers of a trained network at a validation image instead, and adds
`growth.png`, the size of a perturbation of 1e-3 in each part of the network, and `steps.csv`.
This has for each step alpha, the spectral radius of the Jacobian of f, the alpha that
Theorem 1 requires (inf for an eigenvalue with positive real part), the largest explicit h,
the spectral norm of the step, and a bound of it from the weights if one is known, in the norm
of I + hL. Every picture has its CSV beside it.
"""

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import MISSING
from torch import Tensor, nn

from imex_experiments.analysis.certificate import step_bound
from imex_experiments.analysis.jacobian import (
    eigenvalues,
    jacobian_operator,
    spectral_norm,
)
from imex_experiments.analysis.perturbation import growth_atlas, part_growths
from imex_experiments.analysis.stability import explicit_limit, minimal_alpha
from imex_experiments.analysis.trajectory import Step, trajectory
from imex_experiments.config.arguments import parse_arguments
from imex_experiments.config.build import refusing
from imex_experiments.errors import ConfigError
from imex_experiments.facts import DataModule
from imex_experiments.files import write_table
from imex_experiments.networks import DynamicNet
from imex_experiments.networks.cost import parts
from imex_experiments.plots.stability import (
    atlas_figure,
    part_growth_figure,
    theorem_figure,
)
from imex_experiments.runs.load import load_data, load_run
from imex_experiments.tasks import Task
from imex_experiments.terms import SymmetricLayer

GRID = 15
"""Values of alpha, and of h, in the atlas."""

Spectra = dict[str, NDArray[np.complexfloating]]


@dataclass
class Arguments:
    out: str = MISSING
    run: str | None = None
    alphas: list[float] = field(default_factory=lambda: [0.0, 1.0, 3.0, 10.0])
    h: float = 1.0
    allow: list[str] = field(default_factory=list)


def draw_regions(out: Path, alphas: list[float], h: float, spectra: Spectra) -> None:
    theorem_figure(np.array(alphas), h, spectra).savefig(out / "regions.png", dpi=130)
    discs = [{"alpha": a, "centre": -(a + 1 / h), "radius": a + 1 / h} for a in alphas]
    write_table(out / "regions.csv", discs)
    points = [
        {"step": name, "re": value.real, "im": value.imag}
        for name, values in spectra.items()
        for value in values
    ]
    write_table(out / "spectrum.csv", points)


def draw_atlas(
    out: Path, f: Callable[[Tensor], Tensor], y: Tensor, values: NDArray
) -> None:
    radius = float(np.abs(values).max())
    alphas = np.linspace(0, radius, GRID)
    hs = np.geomspace(0.2, 50, GRID) / radius
    growth = growth_atlas(f, y, alphas, hs)
    # alpha = minimal_alpha(h), solved for h; no step is too long if 1 / h <= 0
    bound = minimal_alpha(values, 1e12)
    limit = np.array([1 / (bound - a) if a < bound else math.inf for a in alphas])
    explicit = explicit_limit(values)
    figure = atlas_figure(alphas, hs, growth, limit, explicit)
    figure.savefig(out / "atlas.png", dpi=130)
    rows = [
        {"alpha": a, "h": h, "growth": growth[i, j], "limit of h": limit[j]}
        for i, h in enumerate(hs)
        for j, a in enumerate(alphas)
    ]
    write_table(out / "atlas.csv", rows)


def draw_random_layer(out: Path, alphas: list[float], h: float) -> None:
    torch.manual_seed(0)
    f = SymmetricLayer(4, norm="none", activation="tanh", padding="periodic").double()
    y = torch.randn(1, 4, 16, 16, dtype=torch.float64) / 10
    values = eigenvalues(jacobian_operator(f, y), 60)
    draw_regions(out, alphas, h, {"random symmetric layer": values})
    with torch.no_grad():
        draw_atlas(out, f, y, values)


def draw_run(out: Path, network: DynamicNet, task: Task, data: DataModule) -> None:
    images, *_ = data.samples("val", 1)
    image = task.normalised(images)
    with torch.no_grad(), refusing("run"):
        steps = list(trajectory(network, image))
    spectra = {s.name: eigenvalues(jacobian_operator(s.f, s.y)) for s in steps}
    rows = [describe(network, step, spectra[step.name]) for step in steps]
    write_table(out / "steps.csv", rows)
    for row in rows:
        print(
            f"{row['step']}: alpha {row['alpha']:.4g}, |f'| {row['spectral radius']:.3g}, "
            f"|step| {row['norm of step']:.3g}, bound {row['bound of step']}"
        )
    required = {round(float(row["alpha asked for"]), 2) for row in rows}  # type: ignore[arg-type]
    drawn = sorted({0.0} | {a for a in required if math.isfinite(a)})
    draw_regions(out, drawn, steps[0].h, spectra)
    last = steps[-1]
    with torch.no_grad():
        draw_atlas(out, last.f, last.y, spectra[last.name])
    names = list(parts(network))
    path = list(part_growths(network, image))
    sizes = np.array([p.change for p in path])
    part_growth_figure({"this network": (names, sizes)}).savefig(
        out / "growth.png", dpi=130
    )
    behind = [
        {"part": name, "change": p.change, "growth": p.growth, "norm": p.norm}
        for name, p in zip(names, path, strict=True)
    ]
    write_table(out / "growth.csv", behind)


def describe(network: DynamicNet, step: Step, values: NDArray) -> dict[str, object]:
    """Return the row of a step in steps.csv."""
    block = network.blocks[step.block]
    alpha = 0.0
    if block.operators is not None:
        L = block.operators.at(step.t0, step.t1)
        alpha = float(torch.as_tensor(getattr(L, "alpha", math.nan)).mean())
    f, bound = block.layers.at(step.t0, step.t1), None
    with suppress(ValueError):
        bound = step_bound(step, f) if isinstance(f, nn.Module) else None
    return {
        "step": step.name,
        "h": step.h,
        "alpha": alpha,
        "spectral radius": float(np.abs(values).max()),
        "largest real part": float(values.real.max()),
        "alpha asked for": minimal_alpha(values, step.h),
        "explicit limit of h": explicit_limit(values),
        "norm of step": spectral_norm(jacobian_operator(step, step.y)),
        "bound of step": "" if bound is None else round(bound, 4),
    }


def main() -> None:
    args = parse_arguments(Arguments)
    with refusing("h"):
        minimal_alpha([], args.h)
    if not args.alphas or not all(0 <= a < math.inf for a in args.alphas):
        raise ConfigError(f"alphas must be >= 0 and finite, got {args.alphas}")
    out = Path(args.out)
    if args.run is None:
        out.mkdir(parents=True, exist_ok=True)
        draw_random_layer(out, args.alphas, args.h)
        return
    task: Task = load_run(args.run, allow=args.allow)
    network = task.network
    if not isinstance(network, DynamicNet):
        raise ConfigError(f"{args.run}: a {type(network).__name__} has no time steps")
    out.mkdir(parents=True, exist_ok=True)
    draw_run(out, network, task, load_data(args.run, args.allow))
