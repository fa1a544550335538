"""End all processes of a training on several devices together, whatever their end is."""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from subprocess import Popen

import pytorch_lightning as pl
from pytorch_lightning.strategies.launchers import subprocess_script
from torch import distributed

from imex_experiments.errors import exit_code
from imex_experiments.runs.status import record_death

POLL = 1.0
GRACE = 15.0
"""Seconds between looks at the processes, and for the first one to end by itself."""

END, SEEN = "imex/end", "imex/seen"
"""Keys of the store of a training: exit code of the first process, how many have read it."""

_fitted = threading.Event()
"""Set when the training is over: from then on the other processes only wait."""


def watch_processes(folder: Path) -> None:
    """Let the first process watch those that Lightning starts for further devices.

    Lightning would kill the first process too, without a word. Here it notices by itself,
    from the next exchange of gradients, and ends with an error. One that waits for ever, as
    NCCL may, is ended, and the end recorded in the run folder.
    """
    _fitted.clear()
    launch = partial(_launch, folder)
    subprocess_script._launch_process_observer = launch  # there is no other way in


def _launch(folder: Path, child_processes: Sequence[Popen]) -> None:
    watch = partial(_watch, folder, child_processes)
    threading.Thread(target=watch, daemon=True).start()


def _watch(folder: Path, children: Sequence[Popen]) -> None:
    while not any(child.poll() for child in children):
        if _fitted.wait(POLL):
            return
    time.sleep(GRACE)
    if _fitted.is_set():
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


@contextmanager
def alone_after_fit(trainer: pl.Trainer) -> Iterator[bool]:
    """End the process group of a distributed training; yield True in its first process.

    The first process alone evaluates the kept checkpoint. With several, images are
    repeated so that all devices have equal batches, and would count twice. The others wait
    for the end of the body there, and end with the same exit code.
    """
    _fitted.set()
    if not (distributed.is_available() and distributed.is_initialized()):
        yield True
        return
    trainer.strategy.barrier()
    others = distributed.get_world_size() - 1
    store = distributed.distributed_c10d._get_default_store()
    distributed.destroy_process_group()
    if not trainer.is_global_zero:
        yield False
        store.wait([END], timedelta(days=30))
        code = int(store.get(END))
        store.add(SEEN, 1)
        if code:
            raise SystemExit(code)  # the first process says why
        return
    code = 0
    try:
        yield True
    except BaseException as error:
        code = exit_code(error)
        raise
    finally:
        store.set(END, str(code))
        end = time.monotonic() + GRACE
        while store.add(SEEN, 0) < others and time.monotonic() < end:
            time.sleep(0.05)  # the store may end with this process
