"""Start child processes that end when their parent ends."""

import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from typing import IO

from imex_experiments.errors import FULL_ERROR
from imex_experiments.process.interrupts import INTERRUPTS

PARENT_WATCHED = "IMEX_END_WITH_PARENT"
"""Environment variable that `run_tied` sets for `end_with_parent` in the child."""


def end_with_parent() -> None:
    """Send SIGTERM to this process when its parent ends, if `run_tied` started it.

    The parent holds the other end of stdin. The system closes it when the parent ends, even
    if it is killed, and the child then ends in order instead of training on. Where a
    cluster signals every process of a job, the child gets the same request twice: it
    heeds the first.
    """
    if os.environ.pop(PARENT_WATCHED, None) is None:
        return
    INTERRUPTS.once = True

    def watch() -> None:
        os.read(0, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def run_tied(command: Sequence[str], output: IO[str] | None = None) -> int:
    """Run a command as a child that ends when this process ends; return its exit code.

    Output and tracebacks go to the file `output`. Without one, output goes to the streams
    of this process, and a failure prints one line.
    """
    environment = {**os.environ, PARENT_WATCHED: "1"}
    if output is None:
        environment.pop(FULL_ERROR, None)
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=output,
        env=environment,
        start_new_session=True,  # a Ctrl-C reaches it through stdin alone
    )
    assert child.stdin is not None
    try:
        return child.wait()
    finally:
        child.stdin.close()
        child.wait()
