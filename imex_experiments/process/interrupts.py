"""Turn Ctrl-C and signals that end a run into exceptions, at once or after a training step."""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from imex_experiments.errors import Terminated, exit_code, one_line

log = logging.getLogger(__name__)

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR2")
SIGNALS = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
"""Ctrl-C, a request to terminate, a closed terminal, and a time limit that SLURM announces.

Windows has no SIGHUP and no SIGUSR2.
"""


class Interrupts:
    """The signal handlers of this process, of which there is one instance.

    After `hold`, the first signal waits for `raise_pending`, which is called when the run
    has been saved. A second signal is raised at once, unless `once` is true. `pending` is
    the exception of the last signal, until `raised` is entered again.
    """

    def __init__(self) -> None:
        self.pending: BaseException | None = None
        self.once = False
        """Ignore all signals but the first."""
        self._held = False

    @contextmanager
    def raised(self) -> Iterator[None]:
        """Raise KeyboardInterrupt or Terminated in the body when a signal arrives."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may install handlers
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
        """Ignore signals in the body, which records the end of a run in milliseconds."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, signal.SIG_IGN)
        yield

    def hold(self) -> None:
        """Let the first signal wait for `raise_pending` from now on."""
        if threading.current_thread() is threading.main_thread():
            self.listen()  # again: Lightning has installed its own handler
            self._held = True

    def release(self) -> None:
        """Raise signals at once again."""
        self._held = False

    def raise_pending(self) -> None:
        """Raise the signal that waits, if any; called when the run has been saved."""
        if self.pending is not None:
            raise self.pending

    def listen(self) -> None:
        """Install the handlers, also over those of another library."""
        for number in _listened_to():
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.once and self.pending is not None:
            return
        waits = self._held and self.pending is None
        self.pending = interrupt = _interrupt(number)
        if not waits:
            raise interrupt
        log.warning("ending after this step, with a checkpoint; once more ends at once")


def _listened_to() -> list[int]:
    """Return the signals to handle, without those that `nohup` has set to be ignored."""
    ignored = signal.SIG_IGN
    return [n for n in SIGNALS if n == signal.SIGINT or signal.getsignal(n) != ignored]


def _interrupt(number: int) -> BaseException:
    if number == signal.SIGINT:
        return KeyboardInterrupt()
    return Terminated(signal.Signals(number).name)


def end_at_once() -> None:
    """End the process at a signal, with a line and an exit code, until `run_command` starts.

    A script calls it before its imports, which take seconds. An exception raised during an
    import may be swallowed there, and there is nothing to save yet.
    """

    def end(number: int, frame: FrameType | None) -> None:
        interrupt = _interrupt(number)
        os.write(2, f"error: {one_line(interrupt)}\n".encode())
        os._exit(exit_code(interrupt))

    for number in _listened_to():
        signal.signal(number, end)


INTERRUPTS = Interrupts()
