"""The jobs of sweeps and runs as rows: what each was asked, and what came of it."""

import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from imex_experiments.networks import FIRST_ALPHA, FIRST_H
from imex_experiments.runs.build import REBUILDING, locate, refusing
from imex_experiments.runs.errors import CheckpointError, RunError, one_line
from imex_experiments.runs.layout import (
    CHOICES,
    CONFIG,
    HYDRA,
    METRICS,
    OVERRIDES,
    STATUS,
    SWEEP,
    sweep_file,
)
from imex_experiments.runs.load_run import read_metrics
from imex_experiments.runs.record import read_status
from imex_experiments.runs.resume import dotted
from imex_experiments.runs.strangers import check_folder, read_yaml

log = logging.getLogger(__name__)

FINISHED, UNREADABLE = "finished", "unreadable"

OWN_COLUMNS = ("model", "data", "seed", "model.h", "model.alpha")
"""Overrides that every row has a column for."""

NO_SETTINGS = ("resume", "sweep.", "run_dir")
"""Beginnings of overrides that say how a job is run, not what it computes."""


VARYING = ("auto", "learned")
"""Words for an h or alpha that training varies."""

INTEGRATOR = "model.integrator._target_"

UNSAID = {"": f"died before it wrote {STATUS}", "running": "still running, or killed"}
"""Why a job is not finished, where status.json does not say so itself."""


@dataclass(frozen=True)
class Job:
    """One run folder: its settings, how it ended, and its metrics.

    `alpha` is the effective one, 0 for a network without L. `overrides` are the values that
    the configuration has where any job of the collection was given one. Where `h` or `alpha`
    is learned or chosen it is what it starts from, and `model` says so. `metrics` is empty
    unless the state is "finished".
    """

    run: str
    folder: Path
    model: str = "?"
    integrator: str = ""
    data: str = "?"
    seed: int | None = None
    h: float | None = None
    alpha: float | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)
    state: str = FINISHED
    reason: str = ""
    monitor: str = ""
    mode: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        return self.state == FINISHED


def collect_jobs(sources: Iterable[str | Path]) -> list[Job]:
    """The jobs of sweep folders and run folders, in the natural order of their names.

    A file that cannot be read is named in a warning; its job is then "unreadable".
    CheckpointError for a folder that is neither a sweep nor a run.
    """
    folders = {
        Path(os.path.abspath(run)) for source in sources for run in _runs(Path(source))
    }
    if not folders:
        return []
    root = os.path.commonpath([folder.parent for folder in folders])
    names = {os.path.relpath(folder, root): folder for folder in folders}
    asked = {folder: _words(folder) for folder in folders}
    keys = {key for words in asked.values() for key in words}
    jobs = [
        _read_job(name, names[name], asked[names[name]], keys)
        for name in sorted(names, key=natural)
    ]
    for job in jobs:
        if job.state == UNREADABLE:
            log.warning("skipped %s: %s", job.folder, job.reason)
    return jobs


def natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts 2_seed=0 before 10_seed=0."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def varied(jobs: Sequence[Job]) -> list[str]:
    """The overrides whose values differ between the jobs and that have no own column."""
    known = [job.overrides for job in jobs if job.overrides]
    keys = {key for overrides in known for key in overrides}
    return sorted(
        key
        for key in keys
        if key not in OWN_COLUMNS and len({o.get(key, "") for o in known}) > 1
    )


def result_rows(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """One row per job for results.csv, without anything that a clock decides."""
    keys = varied(jobs)
    metrics = sorted({name for job in jobs for name in job.metrics})
    metrics = [name for name in metrics if not name.endswith("seconds")]
    return [
        {
            "run": job.run,
            "model": job.model,
            "data": job.data,
            "seed": job.seed,
            "h": job.h,
            "alpha": job.alpha,
            **{key: job.overrides.get(key, "") for key in keys},
            "state": job.state,
            "reason": job.reason,
            "monitor": job.monitor,
            **{name: job.metrics.get(name) for name in metrics},
        }
        for job in jobs
    ]


def is_sweep(folder: Path) -> bool:
    """Whether Hydra made the folder for several jobs."""
    return sweep_file(folder).is_file()


def _runs(source: Path) -> list[Path]:
    check_folder(source)
    if (source / HYDRA).is_dir():
        return [source]
    if is_sweep(source):
        if runs := [found.parent for found in source.rglob(str(HYDRA))]:
            return runs
        raise CheckpointError(f"{source}: a sweep in which no job has begun")
    if not source.is_dir():
        raise CheckpointError(f"{source}: no such folder; give a run's or a sweep's")
    if not any(source.iterdir()):
        raise CheckpointError(f"{source}: an empty folder; give a run's or a sweep's")
    raise CheckpointError(
        f"{source}: not a run or a sweep, it has neither {HYDRA}/ nor {SWEEP}"
    )


def _words(folder: Path) -> dict[str, str]:
    """The overrides that a job was given, key to value, as they were written."""
    try:
        words = read_yaml(folder / OVERRIDES)
    except CheckpointError:
        return {}  # as a job that was killed while Hydra wrote its files
    listed = words if isinstance(words, list) else []
    pairs = [str(word).lstrip("+~").partition("=") for word in listed]
    return {key: value for key, _, value in pairs if not key.startswith(NO_SETTINGS)}


def _read_job(run: str, folder: Path, asked: Mapping[str, str], keys: set[str]) -> Job:
    job = Job(run, folder, state=UNREADABLE)
    try:
        with refusing(str(HYDRA)):
            config = dotted(read_yaml(folder / CONFIG))
            job = _configured(job, config, asked, keys)
        with refusing(str(STATUS)):
            job = _ended(job, config)
        if job.finished:
            with refusing(str(METRICS)):
                job = replace(job, metrics=read_metrics(folder))
    except (OSError, RunError) as error:
        return replace(job, state=UNREADABLE, reason=one_line(error))
    return job


def _configured(
    job: Job, config: Mapping[str, Any], asked: Mapping[str, str], keys: set[str]
) -> Job:
    """What .hydra/ tells, which is there before the job begins."""
    needed = {"model.h", "model.alpha", "seed"}
    if missing := needed - config.keys():
        raise ValueError(f"{CONFIG.name} has no {', '.join(sorted(missing))}")
    try:
        choices = dict(read_yaml(job.folder / CHOICES)["hydra"]["runtime"]["choices"])
    except KeyError as error:
        raise ValueError(f"{CHOICES.name} has no {error}") from error
    given = {**asked, **config, **choices}
    varying = [
        f"{name} {config[f'model.{name}']}"
        for name in ("h", "alpha")
        if config[f"model.{name}"] in VARYING
    ]
    return replace(
        job,
        model=", ".join([str(choices.get("model", "?")), *varying]),
        data=str(choices.get("data", "?")),
        integrator=str(config.get(INTEGRATOR, "")).rpartition(".")[-1],
        seed=int(str(config["seed"])),
        h=_number(config["model.h"], FIRST_H),
        overrides={key: _word(given[key]) for key in sorted(keys & given.keys())},
    )


def _ended(job: Job, config: Mapping[str, Any]) -> Job:
    """What status.json tells; without one the job died before it could write it."""
    status = read_status(job.folder)
    if not isinstance(status, dict):
        raise ValueError("not an object")
    state = status.get("state", "failed")
    if state == FINISHED and not {"monitor", "mode"} <= status.keys():
        raise ValueError("names no monitored metric")
    return replace(
        job,
        alpha=float(status["alpha"]) if "alpha" in status else _alpha(config),
        state=state,
        reason=status.get("reason") or UNSAID.get(state if status else "", ""),
        monitor=status.get("monitor", ""),
        mode=status.get("mode", ""),
    )


def _alpha(config: Mapping[str, Any]) -> float:
    """The alpha in force for a job that ended before it recorded it."""
    path = config.get(INTEGRATOR)
    scheme = locate(path, INTEGRATOR, REBUILDING) if path else None
    implicit = getattr(scheme, "uses_operator", False)
    return _number(config["model.alpha"], FIRST_ALPHA) if implicit else 0.0


def _number(value: object, first: float) -> float:
    """A value of the configuration; for one that training varies, where it starts."""
    return first if value in VARYING else float(str(value))


def _word(value: object) -> str:
    """A value as one would write it; 1 and 1.0 are the same."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
