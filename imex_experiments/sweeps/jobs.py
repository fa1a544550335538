"""Jobs of a sweep: each one runs the command of a single run in a process of its own.

A job may be killed, run out of memory or end the interpreter without harm to the others.
The memory of the device is free after it. Its numbers are those of the same run outside of
a sweep. Hydra's launchers decide only where and when a job starts.
"""

import logging
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from imex_experiments.config.allow import again, config_dirs
from imex_experiments.config.overrides import hydra_quoted
from imex_experiments.errors import StorageError, exit_code
from imex_experiments.process.interrupts import INTERRUPTS
from imex_experiments.process.tied import run_tied
from imex_experiments.runs.checkpoint_io import has_checkpoint
from imex_experiments.runs.folder import alone_in
from imex_experiments.runs.layout import CONSOLE, HISTORY, LOGS, STATUS
from imex_experiments.runs.load import read_metrics
from imex_experiments.runs.status import record_death, record_end, status_if_readable

log = logging.getLogger(__name__)


Body = Callable[[DictConfig], float]


def job(script: str) -> Callable[[Body], Body]:
    """Decorate the body of a Hydra application that is run as `python <script>`.

    In a sweep the body runs as a child process. In a single run an exception becomes
    SystemExit, because Hydra prints a line of its own for any other. The launcher
    `processes` reads the attribute `script`.
    """

    def decorate(task: Body) -> Body:
        @wraps(task)
        def body(cfg: DictConfig) -> float:
            if HydraConfig.get().mode is RunMode.MULTIRUN:
                return run_job(script)
            try:
                return task(cfg)
            except Exception as error:
                raise SystemExit(exit_code(error)) from error

        body.script = script  # type: ignore[attr-defined]
        return body

    return decorate


ENDED = ("finished", "failed", "interrupted")
"""States of a run that recorded its own end."""


@dataclass(frozen=True)
class Job:
    """One point of a sweep: the overrides of a single run, and its folder."""

    name: str
    words: Sequence[str]
    folder: Path

    @classmethod
    def present(cls) -> "Job":
        """Return the job whose configuration Hydra holds."""
        hydra = HydraConfig.get()
        return cls(
            job_name(hydra.job),
            [*config_dirs(hydra), *hydra.overrides.task],
            Path(hydra.runtime.output_dir),
        )

    def score_before(self) -> float | None:
        """Return the score if an earlier launch of the sweep has finished the job."""
        status = status_if_readable(self.folder)
        if status.get("state") != "finished":
            return None
        log.info("%s was finished before", self.name)
        return score_of(self.folder, status)

    def score_after(self, status: Mapping[str, Any], seconds: float) -> float:
        """Log the end of the job; return its score, NaN if it failed."""
        if status["state"] == "finished":
            score = score_of(self.folder, status)
            log.info(
                "%s: %s %.4f, %.0f s", self.name, status["monitor"], score, seconds
            )
            return score
        log.error(
            "%s %s with exit code %d: %s (see %s)",
            self.name,
            status["state"],
            status["exit_code"],
            status["reason"],
            self.folder / CONSOLE,
        )
        return math.nan


def job_name(job: Any) -> str:
    """Return the name of a job by Hydra's node `job`: its number, and what is swept."""
    return f"job {job.num} ({job.override_dirname.replace(',', ' ')})"


def run_job(script: str) -> float:
    """Run the present job of a sweep; return its score, NaN if it failed.

    A failure stops no other job; the sweep reports all of them at its end.
    """
    return run_named(script, Job.present())


def run_named(script: str, job: Job) -> float:
    """Run a job, and log its start and its end under its name; return its score or NaN."""
    if (score := job.score_before()) is not None:
        return score
    log.info("%s starts", job.name)
    start = time.perf_counter()
    status = run_in_child(script, job.words, job.folder)
    return job.score_after(status, time.perf_counter() - start)


def run_in_child(script: str, words: Sequence[str], folder: Path) -> dict[str, Any]:
    """Run `python <script> <overrides>` in a folder; return status.json of its end.

    A run that another process holds is left alone; the status that is returned is a failure
    with that reason.
    """
    try:
        if (given := begin(words, folder)) is None:
            return status_if_readable(folder)
        with INTERRUPTS.raised(), (folder / CONSOLE).open("a", encoding="utf-8") as out:
            code = run_tied([sys.executable, script, *given], out)
        return end(folder, code)
    except StorageError as error:
        return failure(error)


def begin(words: Sequence[str], folder: Path) -> list[str] | None:
    """Prepare a folder for its run; return the overrides to start it with.

    An interrupted run resumes from its last checkpoint, a failed one starts anew. None for
    one that is finished, perhaps by the process that was waited for. StorageError if
    another process holds the run.
    """
    place = hydra_quoted(folder)
    with alone_in(folder):
        state = status_if_readable(folder).get("state")
        if state == "finished":
            return None
        if state in ("running", "interrupted") and has_checkpoint(folder):
            return [*again(words), f"resume={place}"]
        _clear(folder)
        return [*words, f"hydra.run.dir={place}"]


def end(folder: Path, code: int) -> dict[str, Any]:
    """Return status.json of a run whose process ended with an exit code.

    A run that could not record its end, because it was killed or refused, is recorded here.
    """
    with alone_in(folder):
        status = status_if_readable(folder)
        if code < 0 or status.get("state") not in ENDED:
            status = record_death(folder, code, _last_line(folder / CONSOLE))
        return status


def failure(error: StorageError) -> dict[str, Any]:
    """Return the status of a run that this process could not start or read the end of."""
    return {"state": "failed", "exit_code": error.exit_code, "reason": str(error)}


def score_of(folder: Path, status: Mapping[str, Any]) -> float:
    """Return the monitored metric of a finished run; `status` is its status.json."""
    return read_metrics(folder)[status["monitor"]]


def record_lost(folders: Iterable[Path], seconds: float = 30.0) -> None:
    """Record jobs that ended without recording it themselves as interrupted.

    Jobs that run on are waited for, for `seconds` in all, and then left as they are.
    """
    end = time.monotonic() + seconds
    for folder in folders:
        if status_if_readable(folder).get("state") in ENDED:
            continue
        with suppress(StorageError), alone_in(folder, max(0.0, end - time.monotonic())):
            state = status_if_readable(folder).get("state")
            if state not in ENDED:
                record_end(folder, "interrupted", 143, LOST[state is not None])


LOST = ("ended before it began", "killed, or its machine failed")
"""Reasons of jobs that recorded no end, without and with a beginning."""


def _last_line(console: Path) -> str:
    lines = console.read_text(encoding="utf-8", errors="replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    return said[-1].removeprefix("error: ") if said else "it said nothing"


def _clear(folder: Path) -> None:
    """Remove the files of a failed attempt, except its logs."""
    for name in ("checkpoints", "figures", *LOGS):
        shutil.rmtree(folder / name, ignore_errors=True)
    for path in (HISTORY, STATUS):
        (folder / path).unlink(missing_ok=True)
