"""Write files atomically, and open files of unknown origin safely.

A file that is written here appears under its name only when all of it is on the disk.
"""

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
    """Write JSON to a file, which appears only when all of it is on the disk."""
    write_text(path, as_json(content))


def as_json(content: Any) -> str:
    """Return content as JSON text, in which NaN and the infinities are null.

    JSON cannot represent them, and a strict parser refuses Python's NaN and Infinity.
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
    """Write rows as CSV. The first row names the columns; floats keep all digits."""
    write_text(path, _header(rows) + _lines(list(rows[0]), rows))


def _header(rows: Sequence[Mapping[str, Any]]) -> str:
    return _lines(list(rows[0]), [{name: name for name in rows[0]}])


def _lines(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    csv.DictWriter(text, fieldnames=columns, lineterminator="\n").writerows(rows)
    return text.getvalue()


class GrowingTable:
    """A CSV file to which rows are added; they are on the disk when `append` returns.

    A checkpoint keeps the `state` of the file, its length in bytes and their SHA-256,
    instead of its rows. A process that is killed may have written more rows, or half a
    row, after its last checkpoint. They are cut off before the next row is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._forget()

    def _forget(self) -> None:
        self._length, self._digest = 0, hashlib.sha256()

    def state(self) -> dict[str, Any]:
        """Return the length and the SHA-256 of the file, for `restore`."""
        return {"length": self._length, "sha256": self._digest.hexdigest()}

    def restore(self, length: int, sha256: str | None) -> None:
        """Continue after the first `length` bytes of the file.

        If their SHA-256 differs, the file is set aside with a warning and a new one begun.
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
        """Add rows in the columns of the first row. After an OSError none is added."""
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
        """Return True if the file has at least `length` bytes; a missing one has 0."""
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
    """Write UTF-8 text to a file, which appears only when all of it is on the disk."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write content to a file, which appears only when all of it is on the disk."""
    with on_disk(path, content) as temporary:
        os.replace(temporary, path)


@contextmanager
def on_disk(path: Path, content: bytes) -> Iterator[Path]:
    """Write content to a temporary file beside `path`, and yield its path.

    The body may rename the temporary file to `path`; otherwise it is deleted at the end.
    It lies in the same folder because a rename is atomic only within one file system. Its
    name is known before it is created, so that a signal at any moment leaves no file.
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
    """Rename a damaged file to an unused name; return a phrase for the log."""
    names = [f"{path.name}.damaged{number}" for number in ("", *range(2, 100))]
    aside = next(n for n in names if not os.path.lexists(path.with_name(n)))
    path.replace(path.with_name(aside))
    return f"set aside as {aside}"


@contextmanager
def staying(folder: Path) -> Iterator[None]:
    """Turn a FileNotFoundError in the body into a StorageError if `folder` is gone."""
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
    """Delete the temporary files of a killed process; no other may be writing here."""
    for leftover in folder.glob(f".*{PARTIAL}"):
        leftover.unlink()


def _sync(file: IO[bytes]) -> None:
    """Flush the content of a file to the disk, so that it survives a loss of power."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, so that they survive a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


NOT_REGULAR = "not a regular file"


def open_regular(path: Path, most: int | None = None) -> io.BufferedReader:
    """Open a regular file for reading in binary, without ever blocking.

    Raises OSError for a folder, a FIFO, a socket or a device, for a file of more than
    `most` bytes, and for a name that no file can have.
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
    """Return the content of a regular file. Raises OSError as `open_regular` does."""
    with open_regular(path, most) as file:
        return file.read(most)
