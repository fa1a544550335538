"""Run one job of a sweep as a job of SLURM: the program of the script in `settings`."""

from imex_experiments.process.interrupts import INTERRUPTS, end_at_once

if __name__ == "__main__":
    end_at_once()  # until the imports are done, which takes seconds

import logging
import math
import os
import subprocess
import sys
from pathlib import Path

from imex_experiments.errors import FULL_ERROR, Terminated, exit_code, one_line
from imex_experiments.installed import TRAIN
from imex_experiments.process.command import run_command
from imex_experiments.runs.status import record_end, status_if_readable
from imex_experiments.sweeps.jobs import Job, run_named

log = logging.getLogger(__name__)


def main() -> None:
    """Run the job; sys.argv has how often it may go on, its name, folder and overrides."""
    most, name, folder, *words = sys.argv[1:]
    logging.basicConfig(
        stream=sys.stdout,
        level=logging.INFO,
        format="%(asctime)s %(message)s",
        datefmt="%H:%M:%S",
    )
    INTERRUPTS.once = True  # SLURM repeats itself when the limit has come
    try:
        score = run_named(str(TRAIN), Job(name, words, Path(folder)))
    except Terminated as signal:
        if str(signal) == "SIGUSR2":
            at_limit(name, Path(folder), int(most))
        else:
            log.warning("%s %s", name, one_line(signal))
        sys.exit(exit_code(signal))
    if math.isnan(score):
        sys.exit(status_if_readable(Path(folder)).get("exit_code") or 1)


def at_limit(name: str, folder: Path, most: int) -> None:
    """Put the job, which has saved, back into the queue; SLURM then ends this process.

    A job that was put back `most` times is interrupted, with that reason.
    """
    if status_if_readable(folder).get("state") in ("finished", "failed"):
        return
    before = int(os.environ.get("SLURM_RESTART_COUNT", 0))
    if before < most:
        log.info("%s is at its time limit, and goes on in the queue", name)
        command = ["scontrol", "requeue", os.environ["SLURM_JOB_ID"]]
        done = subprocess.run(command, capture_output=True, text=True)
        if not done.returncode:
            return
        log.error("%s: %s", name, done.stderr.strip())
    reason = (
        f"reached its time limit {before + 1} times (hydra.launcher.max_num_timeout)"
    )
    record_end(folder, "interrupted", 143, reason)
    log.error("%s interrupted: %s", name, reason)


if __name__ == "__main__":
    os.environ.pop(FULL_ERROR, None)  # the launcher has set it for Hydra
    run_command(main)
