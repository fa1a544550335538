"""Ask SLURM by its commands: sbatch, squeue and others. No accounting is needed."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from imex_experiments.errors import ConfigError, StorageError


def sbatch(options: Sequence[str], script: str) -> str:
    """Run sbatch; return what it prints. ConfigError with its words if it refuses."""
    try:
        done = subprocess.run(
            ["sbatch", *options], input=script, capture_output=True, text=True
        )
    except FileNotFoundError as error:
        raise ConfigError(
            "hydra/launcher=slurm: there is no sbatch here; give the command on a machine "
            "of the cluster, or take hydra/launcher=processes"
        ) from error
    if done.returncode:
        lines = [line.removeprefix("sbatch: ") for line in done.stderr.splitlines()]
        reason = "; ".join(line.removeprefix("error: ") for line in lines)
        raise ConfigError(f"hydra.launcher: SLURM refuses the jobs: {reason}")
    return done.stdout


def queue(array: str) -> dict[int, tuple[str, str]]:
    """Return the state of each job of an array, by number, and why it waits.

    A job is missing some minutes after its end, and when it is cancelled before it begins.
    StorageError if SLURM does not reply.
    """
    command = ["squeue", "--noheader", "--array", "--states=all", f"--jobs={array}"]
    try:
        lines = output([*command, "--format=%K|%T|%r"]).splitlines()
    except StorageError as error:
        if "Invalid job id" in str(error):
            return {}
        raise
    rows = (line.split("|") for line in lines)
    return {int(row[0]): (row[1], row[2]) for row in rows if row[0].isdecimal()}


def arrays_of(sweep: Path) -> list[str]:
    """Return the ids of the arrays of a sweep that SLURM has, of this user."""
    command = ["squeue", "--noheader", "--me", "--format=%F|%k"]
    rows = (line.partition("|") for line in output(command).splitlines())
    return sorted({i for i, _, comment in rows if comment == str(sweep.absolute())})


def output(command: Sequence[str]) -> str:
    """Return what a command of SLURM prints. StorageError if it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise StorageError(f"{command[0]}: {' '.join(done.stderr.split())}")
    return done.stdout
