"""Find the run folders of sweeps, and the commands that made them."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from shlex import quote

from imex_experiments.errors import CheckpointError
from imex_experiments.installed import command_line
from imex_experiments.runs.layout import HYDRA, OVERRIDES, SWEEP, sweep_file
from imex_experiments.runs.plain import check_folder, read_yaml

ADDED = ("hydra.mode=", "hydra.job.config.override_dirname.", "hydra.sweep.")
"""Prefixes of overrides that `sweeps` adds to those of the user."""


def is_sweep(folder: Path) -> bool:
    """Return True if Hydra made the folder for a sweep."""
    return sweep_file(folder).is_file()


def sweep_words(sweep: Path) -> tuple[list[str], list[str]]:
    """Return the overrides of a sweep: those of Hydra's node, and all others.

    Raises CheckpointError for a file without them.
    """
    source = sweep_file(sweep)
    content = read_yaml(source)
    try:
        overrides = content["hydra"]["overrides"]
        return [*map(str, overrides["hydra"])], [*map(str, overrides["task"])]
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{source}: not that of a sweep") from error


def run_folders(sources: Iterable[str | Path]) -> dict[str, Path]:
    """Return the run folders of sweeps and runs by name, in natural order.

    A name is the path below the deepest folder that contains all runs. A run that is given
    twice is listed once. Raises CheckpointError for a folder that is neither a sweep nor a
    run.
    """
    folders = {
        Path(os.path.abspath(run)) for source in sources for run in _runs(Path(source))
    }
    if not folders:
        return {}
    root = os.path.commonpath([folder.parent for folder in folders])
    names = {os.path.relpath(folder, root): folder for folder in folders}
    return {name: names[name] for name in sorted(names, key=natural)}


def natural(name: str) -> list[tuple[int, str]]:
    """Return a sort key that puts 2_seed=0 before 10_seed=0."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def commands(sources: Iterable[str | Path]) -> list[str]:
    """Return the commands that made sweeps and runs, if their folders record them."""
    return [line for source in sources if (line := _command(Path(source)))]


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


def _command(source: Path) -> str | None:
    try:
        if not is_sweep(source):
            return _shell(read_yaml(source / OVERRIDES))
        hydra, task = sweep_words(source)
    except (CheckpointError, TypeError):
        return None
    return _shell(["-m", *(o for o in hydra if not o.startswith(ADDED)), *task])


def _shell(arguments: Iterable[object]) -> str:
    return " ".join([command_line("train"), *(quote(str(word)) for word in arguments)])
