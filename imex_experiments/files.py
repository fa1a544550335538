"""Files that are complete or not there, and those of others opened with care."""

import csv
import errno
import hashlib
import io
import json
import logging
import math
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from imex_experiments.errors import StorageError

log = logging.getLogger(__name__)

PARTIAL = ".partial"


def write_json(path: Path, content: Any) -> None:
    """Write JSON under its final name only when all of it is on the disk."""
    write_text(path, as_json(content))


def as_json(content: Any) -> str:
    """Return content as JSON text, in which NaN and the infinities are null.

    JSON has no word for them, and a strict reader refuses Python's.
    """
    return json.dumps(_finite(content), indent=2, allow_nan=False) + "\n"


def _finite(content: Any) -> Any:
    """Return content with None in place of floats that are not finite."""
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return content


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV with the columns of the first one, floats to their last digit."""
    write_text(path, _header(rows) + _lines(list(rows[0]), rows))


def _header(rows: Sequence[Mapping[str, Any]]) -> str:
    return _lines(list(rows[0]), [{name: name for name in rows[0]}])


def _lines(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    csv.DictWriter(text, fieldnames=columns, lineterminator="\n").writerows(rows)
    return text.getvalue()


class GrowingTable:
    """A CSV file that grows by rows, each on the disk when `append` returns.

    A checkpoint keeps its `state`, the number of bytes and their SHA-256, instead of the
    rows. What the file has behind them, half a row or rows of a process that was killed
    after its last checkpoint, is cut off before the next row is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._forget()

    def _forget(self) -> None:
        self._length, self._digest = 0, hashlib.sha256()

    def state(self) -> dict[str, Any]:
        """Return what `restore` takes."""
        return {"length": self._length, "sha256": self._digest.hexdigest()}

    def restore(self, length: int, sha256: str | None) -> None:
        """Go on after the first `length` bytes of the file.

        A file that does not begin with them is set aside with a warning, for a new one.
        """
        self._forget()
        if length == 0:
            return
        content = b""
        if self._has(length):
            with self.path.open("rb") as file:
                content = file.read(length)
        digest = hashlib.sha256(content)
        if digest.hexdigest() == sha256:
            self._length, self._digest = length, digest
        else:
            self._set_aside()

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows, with the columns of the first row ever; an OSError leaves them out."""
        if not rows:
            return
        if not self._has(self._length):
            self._set_aside()
            self._forget()
        with staying(self.path.parent), self.path.open("a+b") as file:
            if self._length:
                file.seek(0)
                columns = next(csv.reader([file.readline().decode()]))
                text = _lines(columns, rows)
            else:
                text = _header(rows) + _lines(list(rows[0]), rows)
            file.truncate(self._length)
            file.write(text.encode())
            _sync(file)
        if not self._length:
            sync_folder(self.path.parent)
        self._length += len(text.encode())
        self._digest.update(text.encode())

    def _has(self, length: int) -> bool:
        """Tell if the file may be added to; one that is missing has length 0."""
        if self.path.is_symlink() or not self.path.is_file():
            return length == 0 and not os.path.lexists(self.path)
        return self.path.stat().st_size >= length

    def _set_aside(self) -> None:
        aside = set_aside(self.path) if os.path.lexists(self.path) else "gone"
        log.warning(
            "%s: not the rows that were written (%s); the next row begins a new file",
            self.path,
            aside,
        )


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text under its final name only when all of it is on the disk."""
    with on_disk(path, text.encode()) as temporary:
        os.replace(temporary, path)


@contextmanager
def on_disk(path: Path, content: bytes) -> Iterator[Path]:
    """The content in a file beside `path`, ready to take its name; else it goes again.

    Beside it, because a rename is atomic only within one file system. Its name is known
    before it is made: an error of a data worker or a signal may come at any moment.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        with staying(path.parent), temporary.open("wb") as file:
            file.write(content)
            _sync(file)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def set_aside(path: Path) -> str:
    """Rename what is damaged, and say so in a word or two: no name is taken twice."""
    names = [f"{path.name}.damaged{number}" for number in ("", *range(2, 100))]
    aside = next(n for n in names if not os.path.lexists(path.with_name(n)))
    path.replace(path.with_name(aside))
    return f"set aside as {aside}"


@contextmanager
def staying(folder: Path) -> Iterator[None]:
    """Tell of a folder that was there and is not: StorageError, not to be made anew."""
    try:
        yield
    except FileNotFoundError as error:
        if folder.is_dir():
            raise
        raise StorageError(
            f"{folder}: no longer there, deleted or renamed; put it back, or go on "
            "where it is now"
        ) from error


def sweep_partial(folder: Path) -> None:
    """Remove what a killed process left; nobody else may be writing in the folder."""
    for leftover in folder.glob(f".*{PARTIAL}"):
        leftover.unlink()


def _sync(file: IO[bytes]) -> None:
    """Let the content of a file outlive a loss of power."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Let the names in a folder outlive a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


NOT_REGULAR = "not a regular file"


def open_regular(path: Path, most: int | None = None) -> io.BufferedReader:
    """Open a file for reading in binary; never wait, as for the writer of a FIFO.

    OSError for a folder, a FIFO, a socket or a device, for more than `most` bytes, and for
    a name that no file can have.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except ValueError as error:  # a NUL in it
        raise OSError(errno.EINVAL, str(error), str(path)) from error
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket
            raise OSError(errno.EINVAL, NOT_REGULAR, str(path)) from error
        raise
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, NOT_REGULAR, str(path))
        if most is not None and status.st_size > most:
            reason = f"{status.st_size:,} bytes, more than the {most:,} that are read"
            raise OSError(errno.EINVAL, reason, str(path))
    except OSError:
        os.close(handle)
        raise
    return os.fdopen(handle, "rb")


def read_regular(path: Path, most: int) -> bytes:
    """Return the content of a regular file; OSError as in `open_regular`."""
    with open_regular(path, most) as file:
        return file.read(most)
