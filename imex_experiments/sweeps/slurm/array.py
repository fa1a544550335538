"""Wait for the end of an array of SLURM, print what its jobs say, and record their ends."""

import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from imex_experiments.errors import StorageError
from imex_experiments.runs.folder import alone_in
from imex_experiments.runs.status import record_end, status_if_readable
from imex_experiments.sweeps.points import Point
from imex_experiments.sweeps.slurm.commands import queue

LOGS = ".slurm"
"""Folder in a sweep: what the jobs say, one file each."""

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

SECONDS = 10
"""Between two questions to SLURM; what jobs say is read every second."""


@dataclass
class Array:
    """An array of SLURM with jobs of a sweep, by their numbers.

    What jobs have written before it is made is not printed.
    """

    id: str
    sweep: Path
    points: Mapping[int, Point]

    def __post_init__(self) -> None:
        self._left = dict(self.points)
        self._read = {number: self._size_of_log(number) for number in self.points}
        self._said: set[str] = set()

    def attend(self) -> None:
        """Wait for the end of all jobs; an exception, such as a signal, cancels them.

        It goes on when they have ended, or if SLURM does not reply.
        """
        try:
            self._until_ended()
        except BaseException:
            subprocess.run(["scancel", self.id])
            self._until_ended(patient=False)
            raise

    def _until_ended(self, patient: bool = True) -> None:
        while True:
            try:
                self._look(queue(self.id))
            except StorageError as error:
                if not patient:
                    return
                self._say_once(f"SLURM does not reply, waiting: {error}")
            if not self._left:
                return
            for _ in range(SECONDS):
                time.sleep(1)
                for number in self._left:
                    self._relay(number)

    def _look(self, queued: Mapping[int, tuple[str, str]]) -> None:
        """Take note of the jobs that have ended, and of why others wait."""
        for number, point in [*self._left.items()]:
            state, reason = queued.get(number, GONE)
            if state == "PENDING" and reason != "None":
                self._say_once(f"SLURM array {self.id} waits: {reason}")
            if state in ENDS:
                self._relay(number)
                self._record(number, point, state)
                del self._left[number]

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            say(line)

    def _log(self, number: int) -> Path:
        return self.sweep / LOGS / f"{number}.log"

    def _size_of_log(self, number: int) -> int:
        log = self._log(number)
        return log.stat().st_size if log.exists() else 0

    def _relay(self, number: int) -> None:
        """Print the complete lines that a job has written since the last call."""
        with suppress(FileNotFoundError), self._log(number).open("rb") as file:
            file.seek(self._read[number])
            text = file.read()
            lines = text[: text.rfind(b"\n") + 1]
            self._read[number] += len(lines)
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
            say(f"{point.name} {end[0]}: {reason}")


def say(line: str) -> None:
    """Print a line with the time, as jobs do."""
    print(time.strftime("%H:%M:%S"), line, flush=True)
