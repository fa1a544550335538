"""Run the jobs of a sweep on SLURM: submit an array, and wait for its end.

SLURM is asked by its commands: sbatch, squeue, scancel and sinfo. No accounting is needed.
"""

import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from imex_experiments.config.allow import config_dirs
from imex_experiments.errors import ConfigError, StorageError
from imex_experiments.installed import INSTALLED, PACKAGE
from imex_experiments.runs.folder import alone_in
from imex_experiments.runs.status import record_end, status_if_readable
from imex_experiments.sweeps.points import Point, points_of

LOGS = ".slurm"
"""Folder in a sweep: what the jobs say, one file each."""


def launch(config: DictConfig) -> None:
    """Run the jobs of a sweep that have no result, and wait until all have ended.

    Jobs of a launcher before this one that was killed are waited for, first. What jobs say
    is printed. A signal cancels them, and they save and end.
    """
    sweep, points = Path(config.hydra.sweep.dir), dict(enumerate(points_of(config)))
    for old in _arrays_of(sweep):
        _say(f"SLURM array {old} of this sweep is still there: waiting for it")
        Array(old, sweep, points).attend()
    left = {
        number: point
        for number, point in points.items()
        if status_if_readable(point.folder).get("state") != "finished"
    }
    if left:
        array = Array(submit(config.hydra, sweep, left), sweep, left)
        _say(f"SLURM array {array.id}: {len(left)} jobs")
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
    said = _sbatch(["--parsable", *options], _script(hydra.launcher, jobs))
    return said.strip().partition(";")[0]


def _script(launcher: DictConfig, jobs: Mapping[int, Sequence[str]]) -> str:
    """Return the batch script of an array: it becomes the process of one of the jobs.

    That process alone is told of the time limit, and passes it on to its child.
    """
    program = [sys.executable, "-m", "imex_experiments.sweeps.slurm_job"]
    limit = str(launcher.max_num_timeout)
    root = f"export PYTHONPATH={shlex.quote(str(PACKAGE.parent))}:$PYTHONPATH"
    cases = [f"{n}) set -- {shlex.join(words)} ;;" for n, words in jobs.items()]
    lines = [
        "#!/bin/bash",
        *(launcher.setup or ()),
        *([] if INSTALLED else [root]),
        'case "$SLURM_ARRAY_TASK_ID" in',
        *cases,
        "esac",
        f'exec {shlex.join([*program, limit])} "$@"',
    ]
    return "\n".join([*lines, ""])


NAMES = {"name": "job-name", "timeout_min": "time", "mem_gb": "mem"}
"""Settings whose options of sbatch have other names."""

OURS = {"_target_", "setup", "signal_delay_s", "max_num_timeout", "array_parallelism"}
"""Settings that are no options of sbatch by themselves."""


def options_of(launcher: DictConfig) -> list[str]:
    """Return the options of sbatch for the settings. ConfigError for a wrong number."""
    settings: Any = OmegaConf.to_container(launcher, resolve=True)
    for key, least in {"max_num_timeout": 0, "array_parallelism": 1}.items():
        if settings[key] < least:
            raise ConfigError(
                f"hydra.launcher.{key}={settings[key]}: expected {least} or more"
            )
    delay, minutes = settings["signal_delay_s"], settings["timeout_min"]
    if delay >= 60 * minutes:
        raise ConfigError(
            f"hydra.launcher.signal_delay_s={delay}: jobs would be told of their time "
            f"limit at their start; give less than timeout_min={minutes}"
        )
    if settings["mem_gb"] is not None:
        settings["mem_gb"] = f"{_megabytes(launcher)}M"
    more = settings.pop("additional_parameters")
    given = {NAMES.get(key, key): settings[key] for key in settings if key not in OURS}
    return [
        *("--nodes=1", "--ntasks=1", "--requeue", "--open-mode=append"),
        f"--signal=B:USR2@{delay}",
        *(
            _option(k, value)
            for k, value in {**given, **more}.items()
            if value is not None
        ),
    ]


def _option(key: str, value: Any) -> str:
    name = f"--{key.replace('_', '-')}"
    return name if value is True else f"{name}={value}"


def _megabytes(launcher: DictConfig) -> int:
    return round(1024 * (launcher.mem_gb or 0))


def _sbatch(options: Sequence[str], script: str) -> str:
    """Run sbatch; return what it prints. ConfigError with its words if it refuses."""
    try:
        done = subprocess.run(
            ["sbatch", *options], input=script, capture_output=True, text=True
        )
    except FileNotFoundError as error:
        raise ConfigError(
            "hydra/launcher=slurm: there is no sbatch here; give the command on a machine "
            "of the cluster, or take hydra/launcher=ray_cpu"
        ) from error
    if done.returncode:
        lines = [line.removeprefix("sbatch: ") for line in done.stderr.splitlines()]
        reason = "; ".join(line.removeprefix("error: ") for line in lines)
        raise ConfigError(f"hydra.launcher: SLURM refuses the jobs: {reason}")
    return done.stdout


def jobs_at_once(launcher: DictConfig) -> int:
    """Return how many jobs the nodes of the partition hold, at most array_parallelism.

    The jobs of others are not known. ConfigError if SLURM would refuse a job.
    """
    _sbatch(["--test-only", *options_of(launcher)], "#!/bin/bash\n")
    command = ["sinfo", "--noheader", "--Node", "--format=%P|%N|%T|%l|%c|%m|%G"]
    if launcher.partition:
        command.append(f"--partition={launcher.partition}")
    nodes, limits = {}, {}
    for line in _output(command).splitlines():
        partition, node, state, limit, *size = line.split("|")
        if launcher.partition or partition.endswith("*"):
            limits[partition.rstrip("*")] = limit
            if not state.startswith(("down", "drain", "fail", "maint", "unk")):
                nodes[node] = int(size[0]), int(size[1]), _gpus(size[2])
    if all(_minutes(limit) < launcher.timeout_min for limit in limits.values()):
        told = ", ".join(f"{name} {limit}" for name, limit in limits.items())
        raise ConfigError(
            f"hydra.launcher.timeout_min={launcher.timeout_min}: more than the limit of "
            f"the partition ({told}), jobs would wait for ever"
        )
    wanted = (
        launcher.cpus_per_task or 1,
        _megabytes(launcher),
        launcher.gpus_per_node or _gpus(launcher.gres or ""),
    )
    held = [
        min(there // n for there, n in zip(node, wanted, strict=True) if n)
        for node in nodes.values()
    ]
    return min(sum(held), launcher.array_parallelism)


def _minutes(limit: str) -> float:
    """Return minutes of SLURM's words for a time: `1-12:00:00`, `30:00`, `infinite`."""
    if not limit[0].isdecimal():
        return inf
    days, _, clock = limit.rpartition("-")
    hours, minutes, seconds = (["0", "0", *clock.split(":")])[-3:]
    return (int(days or 0) * 24 + int(hours)) * 60 + int(minutes) + int(seconds) / 60


def _gpus(gres: str) -> int:
    """Return the number of GPUs in SLURM's words: `gpu:2`, `gpu:a100:4(S:0-1)`."""
    return sum(
        map(int, re.findall(r"\bgpu(?::[^:,()]*[^\d:,()][^:,()]*)?:(\d+)", gres))
    )


ENDS = {
    "COMPLETED": "",
    "FAILED": "",
    "CANCELLED": "was cancelled",
    "TIMEOUT": "reached its time limit",
    "DEADLINE": "reached its deadline",
    "PREEMPTED": "was preempted",
    "NODE_FAIL": "lost its node",
    "BOOT_FAIL": "lost its node",
    "REVOKED": "was revoked",
    "OUT_OF_MEMORY": "ran out of memory; give more hydra.launcher.mem_gb",
}
"""States of SLURM of a job that has ended, and what happened to it."""

GONE = ("COMPLETED", "")
"""State and reason of a job that SLURM does not know any more."""

SECONDS = 10.0
"""Between two questions to SLURM; what jobs say is read every second."""


@dataclass
class Array:
    """An array of SLURM with jobs of a sweep, by their numbers."""

    id: str
    sweep: Path
    points: Mapping[int, Point]
    _read: dict[int, int] = field(default_factory=dict)
    _said: set[str] = field(default_factory=set)

    def attend(self) -> None:
        """Wait for the end of all jobs; an exception, such as a signal, cancels them.

        It goes on when they have ended, or if SLURM does not reply.
        """
        for number in self.points:
            with suppress(FileNotFoundError):
                self._read[number] = self._log(number).stat().st_size
        try:
            self._until_ended()
        except BaseException:
            subprocess.run(["scancel", self.id])
            self._until_ended(patient=False)
            raise

    def _until_ended(self, patient: bool = True) -> None:
        left = dict(self.points)
        while left:
            try:
                queue = _queue(self.id)
            except StorageError as error:
                if not patient:
                    return
                self._say_once(f"SLURM does not reply, waiting: {error}")
            else:
                for number, point in list(left.items()):
                    state, reason = queue.get(number, GONE)
                    if state == "PENDING" and reason != "None":
                        self._say_once(f"SLURM array {self.id} waits: {reason}")
                    if state in ENDS:
                        self._relay(number)
                        self._record(number, point, state)
                        del left[number]
            end = time.monotonic() + SECONDS
            while left and time.monotonic() < end:
                for number in left:
                    self._relay(number)
                time.sleep(1)

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            _say(line)

    def _log(self, number: int) -> Path:
        return self.sweep / LOGS / f"{number}.log"

    def _relay(self, number: int) -> None:
        """Print the complete lines that a job has written since the last call."""
        with suppress(FileNotFoundError), self._log(number).open("rb") as file:
            file.seek(self._read.get(number, 0))
            lines = file.read()
            lines = lines[: lines.rfind(b"\n") + 1]
            self._read[number] = self._read.get(number, 0) + len(lines)
            print(lines.decode(errors="replace"), end="", flush=True)

    def _record(self, number: int, point: Point, state: str) -> None:
        """Record what SLURM did to a job that has no end of its own."""
        with suppress(StorageError), alone_in(point.folder):
            before = status_if_readable(point.folder).get("state")
            if before in ("finished", "failed"):
                return
            if before == "interrupted" and not ENDS[state]:
                return
            silent = f"ended without a word; see {self._log(number)}"
            happened = ENDS[state] or (silent if before else "was cancelled")
            reason = f"SLURM job {self.id}_{number} {happened}"
            end = ("failed", 6) if state == "OUT_OF_MEMORY" else ("interrupted", 143)
            record_end(point.folder, *end, reason)
            _say(f"{point.name} {end[0]}: {reason}")


def _queue(array: str) -> dict[int, tuple[str, str]]:
    """Return the state of each job of an array, by number, and why it waits.

    A job is missing some minutes after its end, and when it is cancelled before it begins.
    StorageError if SLURM does not reply.
    """
    command = ["squeue", "--noheader", "--array", "--states=all", f"--jobs={array}"]
    try:
        lines = _output([*command, "--format=%K|%T|%r"]).splitlines()
    except StorageError as error:
        if "Invalid job id" in str(error):
            return {}
        raise
    rows = (line.split("|") for line in lines)
    return {int(row[0]): (row[1], row[2]) for row in rows if row[0].isdecimal()}


def _arrays_of(sweep: Path) -> list[str]:
    """Return the ids of the arrays of a sweep that SLURM has, of this user."""
    command = ["squeue", "--noheader", "--me", "--format=%F|%k"]
    rows = (line.partition("|") for line in _output(command).splitlines())
    return sorted({i for i, _, comment in rows if comment == str(sweep.absolute())})


def _output(command: Sequence[str]) -> str:
    """Return what a command of SLURM prints. StorageError if it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise StorageError(f"{command[0]}: {' '.join(done.stderr.split())}")
    return done.stdout


def _say(line: str) -> None:
    print(time.strftime("%H:%M:%S"), line, flush=True)
