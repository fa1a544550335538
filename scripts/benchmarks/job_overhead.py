"""Measure the CPU seconds that a job of a sweep takes before it trains.

`python scripts/benchmarks/job_overhead.py` runs two sweeps of `jobs` jobs that train one step
each, `n_jobs` of them at a time: first every job is a new interpreter, then a fork of the
launcher. It prints the CPU seconds of a job before its first step, median and quartiles, and
those of the whole sweep per job, with the launcher, its plan and its report. With
`before=<folder of another checkout>` a third sweep is run by the train.py there, in turn.
"""

from imex_experiments.process.interrupts import end_at_once

if __name__ == "__main__":
    end_at_once()  # until the imports are done, which takes seconds

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
from rich.console import Console
from rich.table import Table

from imex_experiments.config.arguments import parse_arguments
from imex_experiments.errors import SweepError
from imex_experiments.installed import TRAIN
from imex_experiments.process.command import run_command

TINY = [
    "trainer.max_epochs=1",
    "data.train=16",
    "data.val=4",
    "data.test=4",
    "model.widths=[2,4]",
]

CLOCK = ["allow=[job_overhead]", "+callbacks.clock={_target_:job_overhead.Clock}"]


@dataclass
class Arguments:
    jobs: int = 40
    n_jobs: int = 2
    before: str = ""


class Clock(pl.Callback):
    """Write the CPU seconds of this process and its children at its first training step."""

    def on_train_batch_start(self, trainer: pl.Trainer, *_: object) -> None:
        path = Path(trainer.checkpoint_callback.dirpath).with_name("seconds")  # type: ignore
        if not path.exists():
            path.write_text(str(seconds(resource.RUSAGE_SELF) + children()))


def seconds(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def children() -> float:
    """Return the CPU seconds of all children that have ended, and of theirs."""
    return seconds(resource.RUSAGE_CHILDREN)


@dataclass(frozen=True)
class Cost:
    """The cost of a sweep: CPU seconds of its jobs before their first step, and of all."""

    starts: list[float]
    whole: float
    wall: float


def cost(train: Path, jobs: int, *overrides: str) -> Cost:
    """Run a sweep of so many seeds by `train`; return what it took."""
    seeds = ",".join(map(str, range(jobs)))
    command = [sys.executable, str(train), "-m", f"seed={seeds}", *TINY, *CLOCK]
    paths = os.pathsep.join(map(str, (Path(__file__).parent, train.parent)))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        begun, before = time.perf_counter(), children()
        done = subprocess.run(
            [*command, f"hydra.sweep.dir={folder}/sweep", *overrides],
            env=environment,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise SweepError(done.stderr.strip().splitlines()[-1])
        starts = [float(p.read_text()) for p in Path(folder).glob("sweep/*/seconds")]
        assert len(starts) == jobs
        return Cost(starts, children() - before, time.perf_counter() - begun)


def main() -> None:
    args = parse_arguments(Arguments)
    at_once = f"hydra.launcher.n_jobs={args.n_jobs}"
    ways: dict[str, tuple[Path, list[str]]] = {
        "a new interpreter": (TRAIN, [at_once, "hydra.launcher.fork=false"]),
        "a fork": (TRAIN, [at_once]),
    }
    if args.before:
        there = Path(args.before).resolve() / "train.py"
        ways = {f"that of {args.before}, in turn": (there, [])} | ways
    table = Table(
        title=f"CPU seconds of a job, {args.jobs} jobs, {args.n_jobs} at a time"
    )
    table.add_column("each job is")
    for name in ("before its first step", "quartiles", "sweep / jobs", "wall, sweep"):
        table.add_column(name, justify="right")
    for name, (train, overrides) in ways.items():
        found = cost(train, args.jobs, *overrides)
        low, middle, high = statistics.quantiles(found.starts, n=4)
        table.add_row(
            name,
            f"{middle:.2f}",
            f"{low:.2f} ... {high:.2f}",
            f"{found.whole / args.jobs:.2f}",
            f"{found.wall:.0f} s",
        )
    Console().print(table)


if __name__ == "__main__":
    run_command(main)
