"""Measure the field of view of networks.

`python scripts/field_of_view.py out=<folder>` sends impulses through networks with random
symmetric layers (IMEXnet, Fig. 1): a ResNet of 20 steps with h = 1, one of 5 steps with h = 5,
and an IMEX network of 5 steps with h = 5 and L = alpha x eq. 7. It writes `impulses.png`, an
animation `impulses.gif`, the share of energy more than 10 pixels away from the impulses as
`share.png`, and `impulses.csv`, for `seeds` draws of the weights.

With `run=[<run>,<run>]` it draws the effective receptive fields of trained networks instead,
layer by layer, with the radius that contains 95 % of the energy: `fields.png`, `fields.csv`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from omegaconf import MISSING
from torch import Tensor

from imex_experiments.analysis.receptive_field import (
    Field,
    distances,
    effective_fields,
    radius,
    share_beyond,
)
from imex_experiments.config.arguments import parse_arguments
from imex_experiments.config.build import refusing
from imex_experiments.errors import ConfigError
from imex_experiments.files import write_table
from imex_experiments.integrators import ForwardEuler, Imex, Integrator, TimeGrid
from imex_experiments.networks import DynamicBlock
from imex_experiments.plots.field_of_view import (
    EnergyMap,
    panels_figure,
    save_animation,
    share_figure,
)
from imex_experiments.runs.load import load_data, load_dense, named
from imex_experiments.terms import LaplacianDiffusion, SymmetricLayer

SIDE, CHANNELS, FAR = 64, 4, 10.0
IMPULSES = [(18, 20), (24, 46), (46, 30)]


@dataclass
class Arguments:
    out: str = MISSING
    run: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    alpha: float = 10.0
    seeds: int = 5
    images: int = 16
    allow: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Example:
    """A network of Fig. 1: number of steps, h and integrator."""

    steps: int
    h: float
    scheme: Integrator

    def energies(self, alpha: float, seed: int) -> list[Field]:
        """Return the energy of the state at each time point, starting from impulses."""
        torch.manual_seed(seed)
        block = DynamicBlock(
            CHANNELS,
            TimeGrid.uniform(self.h, self.steps),
            self.scheme,
            partial(SymmetricLayer, norm="none", padding="periodic"),
            partial(LaplacianDiffusion, alpha=alpha),
        )
        return [y.square().sum((0, 1)).double().numpy() for y in self._states(block)]

    def _states(self, block: DynamicBlock) -> Iterator[Tensor]:
        y = torch.zeros(1, CHANNELS, SIDE, SIDE)
        for row, column in IMPULSES:
            y[..., row, column] = 1.0
        yield y
        for t0, t1 in block.grid.steps():
            y = self.scheme.step(block.during(t0, t1), t0, t1, y)
            yield y


EXAMPLES = {
    "ResNet, 20 steps, h = 1": Example(20, 1.0, ForwardEuler()),
    "ResNet, 5 steps, h = 5": Example(5, 5.0, ForwardEuler()),
    "IMEX, 5 steps, h = 5": Example(5, 5.0, Imex()),
}


@torch.no_grad()
def draw_impulses(out: Path, alpha: float, seeds: int) -> None:
    distance = distances((SIDE, SIDE), IMPULSES)
    rows, shown, curves = [], {}, {}
    for name, example in EXAMPLES.items():
        every = [example.energies(alpha, seed) for seed in range(seeds)]
        times = example.h * np.arange(example.steps + 1)
        shares = [[share_beyond(e, distance, FAR) for e in path] for path in every]
        curves[name] = times, np.array(shares)
        shown[name] = every[0]
        rows += [
            {
                "network": name,
                "seed": seed,
                "step": step,
                "time": times[step],
                "share beyond 10 px": shares[seed][step],
                "radius of 95 % [px]": radius(every[seed][step], distance),
            }
            for seed in range(seeds)
            for step in range(example.steps + 1)
        ]
        print(f"{name:26s} beyond {FAR:g} px: {curves[name][1][:, -1].mean():.2e}")
    panels_figure({n: at_fifths(path) for n, path in shown.items()}).savefig(
        out / "impulses.png", dpi=130
    )
    share_figure(curves, FAR).savefig(out / "share.png", dpi=130)
    frames = [
        panels_figure({n: [at_part(p, k / 20)] for n, p in shown.items()})
        for k in range(21)
    ]
    save_animation(frames, out / "impulses.gif")
    write_table(out / "impulses.csv", rows)


def at_fifths(path: list[Field]) -> list[EnergyMap]:
    return [at_part(path, k / 5) for k in range(6)]


def at_part(path: list[Field], part: float) -> EnergyMap:
    """Return the energy after a fraction `part` of the steps."""
    step = int(part * (len(path) - 1) + 1e-9)
    return EnergyMap(f"after step {step}", path[step])


def draw_fields(out: Path, args: Arguments) -> None:
    rows: list[dict[str, object]] = []
    shown: dict[str, list[EnergyMap]] = {}
    for run, name in named(args.run, args.names):
        task, data = load_dense(run, allow=args.allow), load_data(run, args.allow)
        samples, *_ = data.samples("val", args.images)
        panels = []
        for part, seen in effective_fields(
            task.network, task.normalised(samples)
        ).items():
            middle = (seen.shape[0] // 2, seen.shape[1] // 2)
            r = radius(seen, distances(seen.shape, [middle]))
            panels.append(EnergyMap(f"{part}: {r:.0f} px", seen, r))
            rows.append({"run": run, "name": name, "part": part, "radius [px]": r})
        shown.setdefault(name, panels)  # of each name, the first run is drawn
        print(f"{name:26s} 95 % of the field within {r:.1f} px")
    panels_figure(shown).savefig(out / "fields.png", dpi=130)
    write_table(out / "fields.csv", rows)


def main() -> None:
    args = parse_arguments(Arguments)
    with refusing("alpha"):
        LaplacianDiffusion(1, args.alpha)
    if args.seeds < 1 or args.images < 1:
        raise ConfigError(
            f"seeds and images must be >= 1, got {args.seeds} and {args.images}"
        )
    out = Path(args.out)
    for run in args.run:
        load_dense(run, allow=args.allow)  # refused before a folder is made
    out.mkdir(parents=True, exist_ok=True)
    if args.run:
        draw_fields(out, args)
    else:
        draw_impulses(out, args.alpha, args.seeds)
