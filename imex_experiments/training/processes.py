"""End all processes of a training on several devices when one of them is gone."""

import os
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from subprocess import Popen

from pytorch_lightning.strategies.launchers import subprocess_script

from imex_experiments.runs.status import record_death

POLL = 1.0
GRACE = 15.0
"""Seconds between looks at the processes, and for the first one to end by itself."""

fitted = threading.Event()
"""Set when the training is over: the first process evaluates alone."""


def watch_processes(folder: Path) -> None:
    """Let the first process watch those that Lightning starts for further devices.

    Lightning would kill the first process too, without a word. Here it notices by itself,
    from the next exchange of gradients, and ends with an error. One that waits for ever, as
    NCCL may, is ended, and the end recorded in the run folder.
    """
    fitted.clear()
    launch = partial(_launch, folder)
    subprocess_script._launch_process_observer = launch  # there is no other way in


def _launch(folder: Path, child_processes: Sequence[Popen]) -> None:
    watch = partial(_watch, folder, child_processes)
    threading.Thread(target=watch, daemon=True).start()


def _watch(folder: Path, children: Sequence[Popen]) -> None:
    while not any(child.poll() for child in children):
        if fitted.wait(POLL):
            return
    time.sleep(GRACE)
    if fitted.is_set():
        return
    number, code = next(
        (n, c.returncode) for n, c in enumerate(children, 1) if c.poll()
    )
    for child in children:
        child.kill()
    status = record_death(folder, code, f"it ended with exit code {code}")
    reason = f"error: process {number} of the training: {status['reason']}\n"
    os.write(2, reason.encode())
    os._exit(status["exit_code"])
