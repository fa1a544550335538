"""The contract of exit codes: what a failure is called, and how it ends the process.

0 finished, 2 configuration, 3 data, 4 checkpoint, 5 numerics, 6 storage or resources,
130 Ctrl-C, 143 SIGTERM and SIGHUP; 1 is left to faults of the program itself.
"""

import difflib
import errno
import re
import traceback
from collections.abc import Iterable, Sequence
from multiprocessing.connection import wait
from typing import Any

FULL_ERROR = "HYDRA_FULL_ERROR"
"""Set to 1 by a user who wants a traceback, and by us for Hydra's own sake."""


class RunError(Exception):
    """A failure that is told to the user in one line: what, where, and what to do."""

    exit_code = 1


class ConfigError(RunError):
    """The configuration asks for something that cannot be built."""

    exit_code = 2


class DataError(RunError):
    """Data that cannot be used: what, where, and what to do."""

    exit_code = 3


class CheckpointError(RunError):
    """A checkpoint is missing, damaged or of another network."""

    exit_code = 4


class NumericsError(RunError):
    """NaN or Inf where a finite number is needed."""

    exit_code = 5


class StorageError(RunError):
    """A folder that cannot be written, a full disk, or memory that ran out."""

    exit_code = 6


class SweepError(RunError):
    """Some jobs of a sweep failed; each has an exit code of its own in its status.json."""


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, raised in the main thread so that the run can end in order.

    It is a Ctrl-C to libraries, since some let go for nothing else: Ray's C++ among them.
    """


def exit_code(error: BaseException) -> int:
    """The exit code of the contract for an error."""
    error = root_cause(error)
    if isinstance(error, Terminated):
        return 143
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    return getattr(error, "exit_code", 1)


STORAGE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES),
    *(errno.EPERM, errno.EIO, errno.EMFILE, errno.ENFILE),
}
"""What a file system says when it is full, not ours to write, or broken."""

NO_MEMORY = re.compile(r"out of memory|not enough memory|can't allocate memory", re.I)
LIGHTNINGS = "MisconfigurationException"
"""By its name: the import of its package takes seconds."""

INTERVAL = re.compile(r"`val_check_interval` \(\S+\) must be[^.]*")
OTHER_NETWORK = re.compile(r"Error\(s\) in loading state_dict")
NO_SHARED_MEMORY = re.compile(
    r"unable to (?:allocate shared memory|\w+)[^<\n]* file <\S+>: [^(\n]*\w"
)
UNOPENED = re.compile(r"Unable to configure handler")
"""What logging says of a file that it cannot open; the cause says why."""

DEAD_WORKER = re.compile(r"DataLoader worker \(pid(?:\(s\))?[ \d,]+\)[^.]*")
FEWER_WORKERS = ": it may have run out of memory; try fewer data.num_workers or 0"

GONE = (ConnectionError, FileNotFoundError, EOFError)
"""What a DataLoader meets that takes a tensor from a worker which is killed just then: its
socket is closed already, and it counts as alive still."""


def root_cause(error: BaseException) -> BaseException:
    """The interrupt behind Lightning's SystemExit, resources that ran out as StorageError,
    a checkpoint of another network as CheckpointError.

    Any other error is itself.
    """
    if isinstance(error, SystemExit) and isinstance(
        error.__context__, KeyboardInterrupt
    ):
        return error.__context__
    if isinstance(error, OSError) and error.errno in STORAGE:
        return StorageError(
            f"{error.filename or 'storage'}: {error.strerror}; "
            "free some space or write somewhere else"
        )
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return ConfigError(
            f"{error.filename}: a name in it is too long for the file system; "
            "most take 255 bytes"
        )
    if isinstance(error, GONE) and (workers := _loading(error)):
        try:
            ended = wait([worker.sentinel for worker in workers], timeout=10)
        except RuntimeError as killed:  # torch's handler of SIGCHLD names the worker
            return root_cause(killed)
        pids = [str(worker.pid) for worker in workers if worker.sentinel in ended]
        gone = ", ".join(pids) or "unknown"
        return StorageError(f"DataLoader worker (pid {gone}) is gone{FEWER_WORKERS}")
    message = str(error)
    if UNOPENED.match(message) and isinstance(error.__cause__, OSError):
        return root_cause(error.__cause__)
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and NO_MEMORY.search(message)
    ):
        return StorageError(
            "out of memory: try a smaller data.batch_size or model.checkpoint_blocks=true"
        )
    if isinstance(error, RuntimeError) and OTHER_NETWORK.match(message):
        return CheckpointError(
            f"the checkpoint is of another network: {' '.join(message.split())[:200]}"
        )
    if isinstance(error, ValueError) and (unsound := INTERVAL.search(message)):
        return ConfigError(f"trainer: {unsound[0]}")
    if type(error).__name__ == LIGHTNINGS:
        return ConfigError(f"trainer: {' '.join(message.split())}")
    if isinstance(error, RuntimeError) and (full := NO_SHARED_MEMORY.search(message)):
        return StorageError(
            f"{full[0]}: /dev/shm, where data workers pass their batches, is full; "
            "enlarge it, or try data.num_workers=0"
        )
    if isinstance(error, RuntimeError) and (died := DEAD_WORKER.search(message)):
        return StorageError(f"{died[0]}{FEWER_WORKERS}")
    return error


def _loading(error: BaseException) -> Sequence[Any]:
    """Return the workers of the DataLoader that met an error as it took a batch, if any."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name == "_try_get_data":
            return frame.f_locals["self"]._workers
    return ()


def is_interrupt(error: BaseException) -> bool:
    """Whether Ctrl-C or SIGTERM ended the run, which can go on, and not a fault of it."""
    return exit_code(error) in (130, 143)


def one_line(error: BaseException) -> str:
    """The error in one line, with its type where the message alone says too little."""
    if isinstance(error, Terminated):
        return f"ended by {error}"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted by Ctrl-C"
    message = " ".join(str(error).split())
    if hasattr(error, "exit_code"):
        return message
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint for a misspelt name: the nearest known one, or all of them."""
    known = sorted(map(str, known))
    if not known:
        return "there are none here"
    close = difflib.get_close_matches(str(word), known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
