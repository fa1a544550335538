"""The errors of this package, their exit codes, and the line that a user reads.

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
"""The environment variable that adds a traceback when it is 1.

`process.command` sets it as well, so that Hydra raises its errors instead of exiting.
"""


class RunError(Exception):
    """A failure that reaches the user as one line: what, where, and what to do."""

    exit_code = 1


class ConfigError(RunError):
    """A configuration from which nothing can be built or run."""

    exit_code = 2


class DataError(RunError):
    """Data that cannot be used."""

    exit_code = 3


class CheckpointError(RunError):
    """A checkpoint that is missing, damaged or of another network."""

    exit_code = 4


class NumericsError(RunError):
    """NaN or Inf where a finite number is needed."""

    exit_code = 5


class StorageError(RunError):
    """A folder that cannot be written, a full disk, or memory that ran out."""

    exit_code = 6


class SweepError(RunError):
    """A sweep with failed jobs; the status.json of each job has its own exit code."""


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, raised in the main thread so that the run can end in order.

    It is a KeyboardInterrupt because some libraries stop for no other exception, such as
    Ray's C++ code.
    """


def exit_code(error: BaseException) -> int:
    """Return the exit code for an error, as listed at the head of this file."""
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
"""Error numbers of a file system that is full, not writable, or broken."""

NO_MEMORY = re.compile(r"out of memory|not enough memory|can't allocate memory", re.I)
LIGHTNING_REFUSAL = "MisconfigurationException"
"""Lightning's exception, known by name because importing Lightning takes seconds."""

REPORTING = ("wandb", "mlflow")
"""Packages that send what a run logs to a server, or to a file of all runs."""

INTERVAL = re.compile(r"`val_check_interval` \(\S+\) must be[^.]*")
OTHER_NETWORK = re.compile(r"Error\(s\) in loading state_dict")
NO_SHARED_MEMORY = re.compile(
    r"unable to (?:allocate shared memory|\w+)[^<\n]* file <\S+>: [^(\n]*\w"
)
UNOPENED = re.compile(r"Unable to configure handler")
"""Message of `logging` for a file that it cannot open; the cause has the reason."""

DEAD_WORKER = re.compile(r"DataLoader worker \(pid(?:\(s\))?[ \d,]+\)[^.]*")
FEWER_WORKERS = ": it may have run out of memory; try fewer data.num_workers or 0"

RAISED_IN_WORKER = re.compile(r"Caught \w+ in DataLoader worker process")
"""Beginning of a message of torch that ends with the traceback of a data worker."""

LOST = re.compile(r"\bgloo\b|\bNCCL\b|ProcessGroup|c10d")
"""In messages of torch when another process of a training does not answer."""

GONE = (ConnectionError, FileNotFoundError, EOFError)
"""Errors of a DataLoader that receives a tensor while the sending worker is killed.

The socket of the worker is closed already, but its process still counts as alive.
"""


def root_cause(error: BaseException) -> BaseException:
    """Translate an error of Python, torch or Lightning into the one with its exit code.

    Lightning's SystemExit becomes the interrupt behind it. Storage, memory and workers
    that are gone become a StorageError. Weights of another network become a
    CheckpointError, and settings that Lightning refuses a ConfigError. Any other error is
    returned unchanged.
    """
    if isinstance(error, SystemExit) and isinstance(
        error.__context__, KeyboardInterrupt
    ):
        return error.__context__
    if RAISED_IN_WORKER.match(str(error)):
        return root_cause(_without_traceback(error))
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
        return _killed(workers)
    if UNOPENED.match(str(error)) and isinstance(error.__cause__, OSError):
        return root_cause(error.__cause__)
    return _known_by_message(error)


def _without_traceback(error: BaseException) -> BaseException:
    """Return the error that a data worker raised, with the message it had there.

    torch's error is its cause, which has the traceback for HYDRA_FULL_ERROR=1.
    """
    last = str(error).strip().splitlines()[-1]
    message = last.partition(": ")[2]
    number = re.match(r"\[Errno (\d+)\] (.*)", message)
    raised = OSError(int(number[1]), number[2]) if number else type(error)(message)
    raised.__cause__ = error
    return raised


def _known_by_message(error: BaseException) -> BaseException:
    """Return the error of this package for a message of torch or Lightning."""
    message = str(error)
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
    if type(error).__name__ == LIGHTNING_REFUSAL:
        return ConfigError(f"trainer: {' '.join(message.split())}")
    if (package := type(error).__module__.partition(".")[0]) in REPORTING:
        return StorageError(f"logger.{package}: {' '.join(message.split())}")
    if isinstance(error, RuntimeError) and (full := NO_SHARED_MEMORY.search(message)):
        return StorageError(
            f"{full[0]}: /dev/shm, where data workers pass their batches, is full; "
            "enlarge it, or try data.num_workers=0"
        )
    if isinstance(error, RuntimeError) and (died := DEAD_WORKER.search(message)):
        return StorageError(f"{died[0]}{FEWER_WORKERS}")
    if isinstance(error, RuntimeError) and LOST.search(message):
        return StorageError(
            f"another process of the training is gone ({_reason(message)}); it was "
            "killed, ran out of memory, or its machine failed: resume the run"
        )
    return error


def _reason(message: str) -> str:
    """Return the first line of a message of torch, without the place in its source."""
    return re.sub(r"^(\[\S*\]\s*)+", "", message.strip().splitlines()[0])[:120]


def _loading(error: BaseException) -> Sequence[Any]:
    """Return the workers of the DataLoader that raised an error while taking a batch."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name == "_try_get_data":
            return frame.f_locals["self"]._workers
    return ()


def _killed(workers: Sequence[Any]) -> BaseException:
    """Wait for the end of a killed worker; return the error that names it."""
    try:
        ended = wait([worker.sentinel for worker in workers], timeout=10)
    except RuntimeError as killed:  # torch's handler of SIGCHLD names the worker
        return root_cause(killed)
    pids = [str(worker.pid) for worker in workers if worker.sentinel in ended]
    gone = ", ".join(pids) or "unknown"
    return StorageError(f"DataLoader worker (pid {gone}) is gone{FEWER_WORKERS}")


INTERRUPTED = (130, 143)
"""Exit codes of a run that Ctrl-C or a signal ended."""


def is_interrupt(error: BaseException) -> bool:
    """Return True if Ctrl-C or a signal ended the run, so that it can be resumed."""
    return exit_code(error) in INTERRUPTED


def one_line(error: BaseException) -> str:
    """Return an error as one line, with its type unless it has an exit code."""
    if isinstance(error, Terminated):
        return f"ended by {error}"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted by Ctrl-C"
    message = " ".join(str(error).split())
    if hasattr(error, "exit_code"):
        return message
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint for a misspelt name: the nearest known name, or all of them."""
    known = sorted(map(str, known))
    if not known:
        return "there are none here"
    close = difflib.get_close_matches(str(name), known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
