"""Files that are either complete or not there."""

import csv
import io
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


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
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def sweep_partial(folder: Path) -> None:
    """Remove what a killed process left; nobody else may be writing in the folder."""
    for leftover in folder.glob(f".*{PARTIAL}"):
        leftover.unlink()


def sync_folder(folder: Path) -> None:
    """Let the names in a folder outlive a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
