"""Run functions in forks of this process, which have all of its imports done.

A fork has one thread. Locks that other threads hold, and the pool of OpenMP, do not work in
it: a process that forks leaves computing to its children.
"""

import atexit
import gc
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from imex_experiments.process.interrupts import SIGNALS

Result = TypeVar("Result")


def can_fork() -> bool:
    """Return True where a fork of this process works as a new process does.

    The libraries of macOS do not survive a fork, nor does a CUDA device that is in use.
    """
    torch: Any = sys.modules.get("torch")
    in_use = torch is not None and torch.cuda.is_initialized()
    return sys.platform == "linux" and not in_use


def fork(body: Callable[..., None], *args: Any) -> BaseProcess:
    """Start a fork of this process that runs `body` in a session of its own, and ends.

    A Ctrl-C at the terminal does not reach it. Until the body installs others, signals have
    their default effect: the handlers of this process would unwind its stack in the fork.
    """
    if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it drops exit codes
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_by_itself, args=(body, *args))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return process


def _by_itself(body: Callable[..., None], *args: Any) -> None:
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    os.setsid()
    gc.freeze()  # collecting would copy every page that has an object of the parent
    atexit._clear()  # as multiprocessing of Python 3.14 does; these are the parent's
    try:
        body(*args)
    finally:
        atexit._run_exitfuncs()


def apart(function: Callable[..., Result], *args: Any) -> Result:
    """Return `function(*args)`, computed in a child process.

    It is a fork, or a new interpreter where `can_fork` is False: function and arguments are
    then pickled, as are the result and an exception. Memory and device are free when it
    returns. ChildProcessError if the child is killed.
    """
    reader, writer = multiprocessing.Pipe(duplex=False)
    task = (reader, writer, function, args)
    if can_fork():
        child = fork(_reply, *task)
    else:
        child = multiprocessing.get_context("spawn").Process(target=_reply, args=task)
        child.start()
    writer.close()
    try:
        result, error = reader.recv()
    except EOFError as gone:
        child.join()
        raise ChildProcessError(
            f"a process of this command ended with {child.exitcode}; if it was killed, "
            "running out of memory is the usual cause"
        ) from gone
    finally:
        child.terminate()
        child.join()
        reader.close()
    if error is not None:
        raise error
    return result


def _reply(
    reader: Connection,
    writer: Connection,
    function: Callable[..., object],
    args: Sequence[Any],
) -> None:
    reader.close()  # so that a dead parent is noticed
    try:
        reply: tuple[object, Exception | None] = function(*args), None
    except Exception as error:
        error.add_note(traceback.format_exc())  # which is not pickled
        reply = None, error
    writer.send(reply)
