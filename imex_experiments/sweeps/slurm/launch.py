"""Launch the jobs of a sweep on SLURM as one array."""

from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig

from imex_experiments.config.allow import config_dirs
from imex_experiments.runs.status import status_if_readable
from imex_experiments.sweeps.points import Point, points_of
from imex_experiments.sweeps.slurm.array import LOGS, Array, say
from imex_experiments.sweeps.slurm.commands import arrays_of, queue, sbatch
from imex_experiments.sweeps.slurm.settings import batch_script, options_of


def launch(config: DictConfig) -> None:
    """Run the jobs of a sweep that have no result, and wait until all have ended.

    Jobs of a launcher before this one that was killed are waited for, first. What jobs say
    is printed. A signal cancels them, and they save and end.
    """
    sweep, points = Path(config.hydra.sweep.dir), dict(enumerate(points_of(config)))
    for old in arrays_of(sweep):
        say(f"SLURM array {old} of this sweep is still there: waiting for it")
        Array(old, sweep, {n: points[n] for n in queue(old) if n in points}).attend()
    left = {
        number: point
        for number, point in points.items()
        if status_if_readable(point.folder).get("state") != "finished"
    }
    if left:
        array = Array(submit(config.hydra, sweep, left), sweep, left)
        say(f"SLURM array {array.id}: {len(left)} jobs")
        array.attend()


def submit(hydra: DictConfig, sweep: Path, points: Mapping[int, Point]) -> str:
    """Submit jobs by number as one array; return its id. ConfigError if SLURM refuses."""
    folder = (sweep / LOGS).absolute()
    folder.mkdir(exist_ok=True)
    numbers = ",".join(map(str, points))
    options = [
        *options_of(hydra.launcher),
        f"--array={numbers}%{hydra.launcher.array_parallelism}",
        f"--output={str(folder).replace('%', '%%')}/%a.log",
        f"--comment={sweep.absolute()}",
    ]
    jobs = {
        number: [point.name, str(point.folder), *config_dirs(hydra), *point.words]
        for number, point in points.items()
    }
    said = sbatch(["--parsable", *options], batch_script(hydra.launcher, jobs))
    return said.strip().partition(";")[0]
