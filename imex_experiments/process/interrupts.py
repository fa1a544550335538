"""Ctrl-C, SIGTERM and SIGHUP: an exception at once, or after the step under way."""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from imex_experiments.errors import Terminated, exit_code, one_line

log = logging.getLogger(__name__)

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
SIGNALS = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
"""Ctrl-C, a request to end, and the end of the terminal; Windows has no SIGHUP."""


class Interrupts:
    """What the signals of this process do; signals belong to the process, so there is one.

    While they are held the first one waits for a moment at which the run can be saved; a
    second one never waits. The last one is `pending` until the next body begins.
    """

    def __init__(self) -> None:
        self.pending: BaseException | None = None
        self._held = False

    @contextmanager
    def raised(self) -> Iterator[None]:
        """The body ends like by an exception: KeyboardInterrupt or Terminated."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may ask for signals
            return
        self.pending = None
        before = {number: signal.getsignal(number) for number in _listened_to()}
        self.listen()
        try:
            yield
        finally:
            self.release()
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def ignored(self) -> Iterator[None]:
        """The body is not disturbed: a few milliseconds in which the end is written."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, signal.SIG_IGN)
        yield

    def hold(self) -> None:
        """From now on wait for `raise_pending`."""
        if threading.current_thread() is threading.main_thread():
            self.listen()  # again, because Lightning put a handler of its own
            self._held = True

    def release(self) -> None:
        self._held = False

    def raise_pending(self) -> None:
        """A moment at which the run has been saved."""
        if self.pending is not None:
            raise self.pending

    def listen(self) -> None:
        """Install our handlers; again, where another library put its own."""
        for number in _listened_to():
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        waits = self._held and self.pending is None
        self.pending = interrupt = _interrupt(number)
        if not waits:
            raise interrupt
        log.warning("ending after this step, with a checkpoint; once more ends at once")


def _listened_to() -> list[int]:
    """Return the signals that matter: `nohup` has SIGHUP ignored, and it stays so."""
    ignored = signal.SIG_IGN
    return [n for n in SIGNALS if n == signal.SIGINT or signal.getsignal(n) != ignored]


def _interrupt(number: int) -> BaseException:
    if number == signal.SIGINT:
        return KeyboardInterrupt()
    return Terminated(signal.Signals(number).name)


def end_at_once() -> None:
    """Until `run_command` takes over, a signal ends the process with a line and its code.

    A script calls it before its imports, which take seconds: an exception that is raised
    within one may be swallowed there, and there is nothing to save yet.
    """

    def end(number: int, frame: FrameType | None) -> None:
        interrupt = _interrupt(number)
        os.write(2, f"error: {one_line(interrupt)}\n".encode())
        os._exit(exit_code(interrupt))

    for number in _listened_to():
        signal.signal(number, end)


INTERRUPTS = Interrupts()
