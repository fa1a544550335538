"""Ctrl-C and SIGTERM: an exception at once, or after the step that is under way."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from imex_experiments.runs.errors import Terminated

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """What the signals of this process do; signals belong to the process, so there is one.

    While they are held the first one waits in `pending` for a moment at which the run can
    be saved; a second one never waits.
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
        before = {number: signal.getsignal(number) for number in SIGNALS}
        self._install()
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
            self._install()  # again, because Lightning put a handler of its own
            self._held = True

    def release(self) -> None:
        self._held = False

    def raise_pending(self) -> None:
        """A moment at which the run has been saved."""
        if self.pending is not None:
            raise self.pending

    def _install(self) -> None:
        for number in SIGNALS:
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        interrupt = (
            KeyboardInterrupt() if number == signal.SIGINT else Terminated("SIGTERM")
        )
        if not self._held or self.pending is not None:
            raise interrupt
        self.pending = interrupt
        log.warning("ending after this step, with a checkpoint; once more ends at once")


INTERRUPTS = Interrupts()
