"""Child processes that end when their parent ends."""

import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from typing import IO

from imex_experiments.errors import FULL_ERROR

PARENT_WATCHED = "IMEX_END_WITH_PARENT"
"""Set for the processes of jobs; see `end_with_parent`."""


def end_with_parent() -> None:
    """In the process of a job: SIGTERM to itself when the launcher is gone.

    The launcher holds the other end of stdin; however it ends, the system closes it, and
    the job ends in order instead of training on for nobody.
    """
    if os.environ.pop(PARENT_WATCHED, None) is None:
        return

    def watch() -> None:
        os.read(0, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def run_tied(command: Sequence[str], output: IO[str] | None = None) -> int:
    """The exit code of a command that ends in order when this process ends, however.

    Its output, tracebacks included, goes to the file `output`; by default to where ours
    goes, with one line for a failure.
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
        start_new_session=True,  # Ctrl-C is ours to hand on, once
    )
    assert child.stdin is not None
    try:
        return child.wait()
    finally:
        child.stdin.close()
        child.wait()
