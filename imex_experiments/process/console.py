"""Print although the reader goes, or knows fewer characters: the work goes on.

`train.py | head -1` trains to its end, and so does a run whose terminal was closed, to the
checkpoint that its signal asks for. train.log has what the console misses.
"""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

GONE = {errno.EPIPE, errno.EIO}
"""Errors of writing to a pipe that nobody reads, and to a terminal that was closed."""


@contextmanager
def lenient_console() -> Iterator[None]:
    """Replace stdout and stderr by streams that no reader and no character can break.

    A character that the encoding lacks is written as its backslash escape.
    """
    with ExitStack() as streams:
        for name in ("stdout", "stderr"):
            streams.enter_context(_lenient(name))
        yield


@contextmanager
def _lenient(name: str) -> Iterator[None]:
    before = getattr(sys, name)
    try:
        raw = _Raw(before.fileno(), "w", closefd=False)
    except (AttributeError, OSError):  # none, or one that is no file
        yield
        return
    before.flush()
    stream = io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=before.encoding,
        errors="backslashreplace",
        line_buffering=before.line_buffering,
    )
    setattr(sys, name, stream)
    try:
        yield
    finally:
        stream.flush()
        setattr(sys, name, before)


class _Raw(io.FileIO):
    """A file descriptor that becomes /dev/null when its reader has gone."""

    def write(self, content: Any) -> int:
        try:
            return super().write(content)
        except OSError as error:
            if error.errno not in GONE:
                raise
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(
                nowhere, self.fileno()
            )  # for whoever shares it: children, libraries
            os.close(nowhere)
            return len(content)
