"""Open files that somebody else may have put there: regular ones, of bounded size."""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

NOT_REGULAR = "not a regular file"


def open_regular(path: Path, most: int | None = None) -> BufferedReader:
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
