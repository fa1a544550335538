"""Make a private run folder with enough disk space, and lock it for one process."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from imex_experiments.errors import ConfigError, StorageError
from imex_experiments.files import sweep_partial, write_json
from imex_experiments.process.rank import is_first_process
from imex_experiments.runs.checkpoint_io import has_checkpoint
from imex_experiments.runs.layout import HYDRA, LAST, LOCK, STATUS, resume_command
from imex_experiments.runs.status import now

BYTES = 4 * 3 * 4
"""Bytes per weight: it and two moments in last, previous, best and next checkpoint."""

LOGS = 16 * 2**20
"""Bytes for everything else in a run folder."""


def make_private(folder: Path, key: str, weights: int = 0) -> None:
    """Make a run folder that only this user may read, after checking the disk space.

    Raises StorageError as `require_room` does.
    """
    require_room(folder, key, weights)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def require_room(folder: Path, key: str, weights: int = 0) -> None:
    """Raise StorageError if a folder cannot be written, or its disk has too little space."""
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    try:
        with tempfile.TemporaryFile(dir=existing):
            free, needed = shutil.disk_usage(existing).free, BYTES * weights + LOGS
    except OSError as error:
        raise StorageError(
            f"{key}={folder}: {existing} cannot be written ({error.strerror}); "
            "choose another folder"
        ) from error
    if free < needed:
        raise StorageError(
            f"{key}={folder}: a run needs {needed / 2**20:.0f} MiB, "
            f"{free / 2**20:.0f} MiB are free; free some space or choose another folder"
        )


@contextmanager
def alone_in(folder: Path, seconds: float = 30.0, kind: str = "run") -> Iterator[None]:
    """Lock the folder of a run or sweep for this process, within the body.

    Unfinished files of a killed process are deleted. Raises StorageError if another process
    holds the lock.
    """
    if not is_first_process():
        yield
        return
    try:
        with FileLock(folder / LOCK, timeout=seconds):
            for place in (folder, folder / HYDRA, folder / LAST.parent):
                sweep_partial(place)
            yield
    except Timeout as error:
        raise StorageError(
            f"{folder}: another process is still writing this {kind}; end it first"
        ) from error


def claim(folder: Path, more: Sequence[str] = ()) -> None:
    """Record in a folder that it has a run. Raises ConfigError if it has one already.

    If two runs claim a folder at once, one of them is refused. The error has the command
    that resumes the run, with the arguments `more`.
    """
    if not is_first_process():
        return
    if not _is_taken(folder):  # before the lock, which a run holds until it ends
        with alone_in(folder):
            if not _is_taken(folder):
                write_json(folder / STATUS, {"state": "running", "started": now()})
                return
    again = resume_command(Path(os.path.relpath(folder)), more)
    way = f"go on with it: {again}, or" if has_checkpoint(folder) else "delete it, or"
    raise ConfigError(
        f"hydra.run.dir={folder}: there is a run in it already; {way} choose another "
        "folder"
    )


def _is_taken(folder: Path) -> bool:
    return (folder / STATUS).exists() or has_checkpoint(folder)
