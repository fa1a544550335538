"""Keep working when the console cannot print.

The reader of a pipe may end (`train.py | head -1`), a terminal may be closed, and an encoding
may lack a character. Training continues in each case; train.log has all output.
"""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

GONE = {errno.EPIPE, errno.EIO}
"""Errors of writing to a pipe without a reader, and to a terminal that was closed."""


@contextmanager
def lenient_console() -> Iterator[None]:
    """Replace stdout and stderr by streams that never raise when their reader is gone.

    A character that the encoding lacks is written as its backslash escape.
    """
    with ExitStack() as streams:
        for name in ("stdout", "stderr"):
            streams.enter_context(_lenient(name))
        yield


@contextmanager
def _lenient(name: str) -> Iterator[None]:
    """Replace one of the streams of `sys` within the body."""
    before = getattr(sys, name)
    try:
        raw = _Raw(before.fileno(), "w", closefd=False)
    except (AttributeError, OSError):  # no stream, or one without a file
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
            # Child processes and libraries share this file descriptor.
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return len(content)
