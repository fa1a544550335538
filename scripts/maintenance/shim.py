"""Build shim.c with the machine's C compiler, and arm it in the process that is disturbed."""

import ctypes
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")

HOW = {"count": 0, "kill": 1, "half": 2, "ENOSPC": 3, "EIO": 4, "SIGTERM": 5}
"""Disturbances of an operation, and their numbers in the shim.

kill: SIGKILL before the call. half: SIGKILL after half of a write, or after another call.
ENOSPC: half of a write, and from then on no room for anything. EIO: the call fails, once.
"""


def is_loaded() -> bool:
    """Return whether this process was started with the shim."""
    return hasattr(ctypes.CDLL(None), "shim_arm")


def build(folder: Path) -> Path:
    """Return the shim as a library, made in a folder by CC, or by cc.

    CalledProcessError if it cannot be built, FileNotFoundError without a compiler.
    """
    library = folder / "shim.so"
    compiler = os.environ.get("CC", "cc")
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler, *flags, "-o", library, SOURCE, "-ldl"], check=True)
    return library


def start_again() -> None:
    """Replace this process by the same command with the shim loaded."""
    library = build(Path(tempfile.mkdtemp(prefix="shim-")))
    environment = {**os.environ, "LD_PRELOAD": str(library)}
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)


def arm(folder: Path, how: str, number: int, names: Path | None = None) -> None:
    """Disturb the file operation `number` of this process in a folder, counted from 1.

    The operations go to the file `names`, one a line: the process, the call and the path.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    tally = -1 if names is None else os.open(names, flags, 0o600)
    ctypes.CDLL(None).shim_arm(
        os.fsencode(folder.resolve()), ctypes.c_long(number), HOW[how], tally
    )


def join() -> None:
    """Take part in a fork of the armed process, if there is one: its count goes on."""
    ctypes.CDLL(None).shim_join()
