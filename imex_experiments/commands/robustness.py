"""Measure the robustness of trained networks to noise and to attacks.

`python scripts/robustness.py out=<folder> run=[<run>,<run>] names=[imexnet,resnet]`

disturbs the first `images` test images of the first run, and scores every run on them (mIoU,
or RMSE in metres). `noise.png` shows Gaussian noise, blur, loss of contrast, a shift of grey
values, an occluded middle, and time steps of another length. `attacks.png` shows FGSM and PGD
with `steps` steps and random `restarts`, of sizes `linf` in grey values and `l2` in units of
the range of grey values. Runs of one name are seeds of one network: mean and range are drawn.
`noise.csv` and `attacks.csv` have all numbers.

`checks.csv` has the checks of each run: PGD must be at least as strong as FGSM, as random
search with as many tries (otherwise gradients are masked), and as PGD of any smaller size.
Each size starts from the result of the size before.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import MISSING
from torch import Tensor

from imex_experiments.analysis.corruptions import CORRUPTIONS, WHITE
from imex_experiments.analysis.robustness import (
    Norm,
    fgsm,
    pgd,
    random_search,
    with_steps_of,
)
from imex_experiments.config.arguments import parse_arguments
from imex_experiments.errors import ConfigError
from imex_experiments.files import write_table
from imex_experiments.networks import DynamicNet
from imex_experiments.plots.robustness import SeedScores, robustness_figure
from imex_experiments.runs.load import load_data, load_dense, named
from imex_experiments.tasks import Task

STEP_CHANGES = (-0.5, -0.25, -0.1, 0.0, 0.1, 0.25, 0.5)
SLACK = 1e-6
"""Relative tolerance of the checks, for rounding."""

Row = dict[str, Any]


@dataclass
class Arguments:
    run: list[str] = MISSING
    out: str = MISSING
    names: list[str] = field(default_factory=list)
    images: int = 32
    linf: list[float] = field(default_factory=lambda: [0.0, 1.0, 2.0, 4.0, 8.0])
    l2: list[float] = field(default_factory=lambda: [0.0, 0.25, 0.5, 1.0, 2.0])
    steps: int = 10
    restarts: int = 1
    allow: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Subject:
    """A trained task with its test images, in [0, 1], and targets."""

    name: str
    run: str
    task: Task
    images: Tensor
    targets: Tensor

    def losses(self, images: Tensor) -> Tensor:
        return self.task.sample_losses(self.task(WHITE * images), self.targets)

    @torch.no_grad()
    def score(self, images: Tensor) -> float:
        return self.task.score(self.task(WHITE * images), self.targets)

    def row(self, kind: str, level: float, score: float) -> Row:
        return {
            "name": self.name,
            "run": self.run,
            "disturbance": kind,
            "level": level,
            self.task.monitor.removeprefix("val/"): score,
        }


def noise_rows(subject: Subject) -> Iterator[Row]:
    for kind, corruption in CORRUPTIONS.items():
        for level in corruption.levels:
            worse = corruption.apply(WHITE * subject.images, level) / WHITE
            yield subject.row(
                f"{kind} [{corruption.unit}]", level, subject.score(worse)
            )
    network = subject.task.network
    if isinstance(network, DynamicNet):
        for change in STEP_CHANGES:
            subject.task.network = with_steps_of(network, 1 + change)
            score = subject.score(subject.images)
            yield subject.row("change of h [1]", change, score)
        subject.task.network = network


def attack_rows(subject: Subject, args: Arguments) -> Iterator[Row]:
    sizes: dict[Norm, Sequence[float]] = {
        "linf": [size / WHITE for size in args.linf],
        "l2": args.l2,
    }
    units = {"linf": "Linf [grey values]", "l2": "L2 [range of grey values]"}
    tries = args.steps * (args.restarts + 2)
    for norm, epsilons in sizes.items():
        worst = subject.images
        for epsilon in sorted(epsilons):
            ball = subject.losses, subject.images, epsilon, norm
            worst = pgd(*ball, args.steps, args.restarts, start=worst)
            found = {
                "FGSM": fgsm(*ball),
                "PGD": worst,
                "random search": random_search(*ball, tries),
            }
            for attack, images in found.items():
                level = WHITE * epsilon if norm == "linf" else epsilon
                kind = f"{attack}, {units[norm]}"
                with torch.no_grad():
                    loss = float(subject.losses(images).mean())
                yield subject.row(kind, level, subject.score(images)) | {"loss": loss}


def check_rows(rows: Sequence[Row]) -> list[Row]:
    """Compare the loss of PGD with that of other attacks and smaller sizes, per run."""
    loss = {(r["run"], r["disturbance"], r["level"]): r["loss"] for r in rows}
    checks = []
    for (run, kind, level), found in loss.items():
        if kind.startswith("PGD"):
            others = {
                name: loss[run, kind.replace("PGD", name), level]
                for name in ("FGSM", "random search")
            }
            smaller = [
                v
                for (r, k, s), v in loss.items()
                if (r, k) == (run, kind) and s < level
            ]
            others["PGD of a smaller size"] = max(smaller, default=-math.inf)
            checks += [
                {"run": run, "attack": kind, "size": level, "loss": found}
                | {"beside": name, "its loss": value}
                | {"holds": value <= found + SLACK * abs(found)}
                for name, value in others.items()
            ]
    return checks


def draw(rows: Sequence[Row], metric: str, path: Path) -> None:
    panels: dict[str, dict[str, SeedScores]] = {}
    for kind in dict.fromkeys(row["disturbance"] for row in rows):
        panels[kind] = {}
        for name in dict.fromkeys(row["name"] for row in rows):
            mine = [r for r in rows if (r["disturbance"], r["name"]) == (kind, name)]
            if mine:
                levels = sorted({row["level"] for row in mine})
                seeds = [
                    [
                        r[metric]
                        for level in levels
                        for r in mine
                        if (r["run"], r["level"]) == (run, level)
                    ]
                    for run in dict.fromkeys(row["run"] for row in mine)
                ]
                panels[kind][name] = SeedScores(np.array(levels), np.array(seeds))
    unit = {"rmse": "RMSE [m]", "miou": "mIoU [1]"}[metric]
    robustness_figure(panels, unit).savefig(path, dpi=130)


def subjects(args: Arguments) -> list[Subject]:
    tasks = [
        (run, name, load_dense(run, allow=args.allow))
        for run, name in named(args.run, args.names)
    ]
    for run, _, task in tasks:
        if task.facts["dtype"] != "uint8":
            raise ConfigError(
                f"{run}: trained on floats, sizes here are of 8-bit images"
            )
        if type(task) is not type(tasks[0][2]):
            kinds = f"{type(task).__name__}, not {type(tasks[0][2]).__name__}"
            raise ConfigError(f"{run}: a run of {kinds}")
    images, targets = load_data(args.run[0], args.allow).samples("test", args.images)
    images = images.float() / WHITE
    return [Subject(name, run, task, images, targets) for run, name, task in tasks]


def main() -> None:
    args = parse_arguments(Arguments)
    if not args.run:
        raise ConfigError("run: give one or more, run=[<run>,<run>]")
    if not all(0 <= size < math.inf for size in [*args.linf, *args.l2]):
        raise ConfigError(f"linf and l2 must be >= 0, got {args.linf} and {args.l2}")
    if min(args.images, args.steps) < 1 or args.restarts < 0:
        raise ConfigError(
            f"images and steps must be >= 1, restarts >= 0, got {args.images}, {args.steps} "
            f"and {args.restarts}"
        )
    tested = subjects(args)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    metric = tested[0].task.monitor.removeprefix("val/")
    noise, attacks = [], []
    for subject in tested:
        print(f"{subject.name}: {subject.run}")
        noise += list(noise_rows(subject))
        attacks += list(attack_rows(subject, args))
    checks = check_rows(attacks)
    for name, rows in (("noise", noise), ("attacks", attacks), ("checks", checks)):
        write_table(out / f"{name}.csv", rows)
    draw(noise, metric, out / "noise.png")
    shown = [row for row in attacks if not row["disturbance"].startswith("random")]
    draw(shown, metric, out / "attacks.png")
    failed = sum(not check["holds"] for check in checks)
    print(f"checks      {len(checks) - failed} of {len(checks)} hold, see checks.csv")
