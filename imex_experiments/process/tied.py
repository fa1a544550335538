"""Start child processes that end when their parent ends: new interpreters, or forks."""

import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import IO, Any

from hydra.core.global_hydra import GlobalHydra

from imex_experiments.errors import FULL_ERROR
from imex_experiments.process.forks import fork
from imex_experiments.process.interrupts import INTERRUPTS

PARENT_WATCHED = "IMEX_END_WITH_PARENT"
"""Environment variable that `Children` sets for `end_with_parent` in a child."""

THREADS = "OMP_NUM_THREADS"
"""Environment variable of how many threads a process computes with."""


def end_with_parent() -> None:
    """Send SIGTERM to this process when its parent ends, if `Children` started it.

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
    with Children() as children:
        return children.start(command, output).wait()


class Child:
    """A child process that `Children` started."""

    def __init__(self, process: "subprocess.Popen[Any] | BaseProcess") -> None:
        self._process = process
        self._code: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, -n if signal n killed the child, None while it runs."""
        if self._code is None:
            if isinstance(self._process, subprocess.Popen):
                self._code = self._process.poll()
            else:
                self._code = self._process.exitcode
                if self._code is not None:
                    self._process.close()  # else its pipes stay open
        return self._code

    def wait(self) -> int:
        """Wait until the child ends; return its exit code as `poll` does."""
        if self._code is None:
            if isinstance(self._process, subprocess.Popen):
                self._process.wait()
            else:
                self._process.join()
        code = self.poll()
        assert code is not None
        return code


class Children:
    """Child processes that end in order when the body of `with` ends, or this process.

    Their stdin is a pipe whose other end this process alone holds. The system closes it when
    this process ends, even if it is killed (`end_with_parent`). Each child has a session of
    its own, so that a Ctrl-C reaches it through that pipe alone.
    """

    def __init__(self) -> None:
        self._started: list[Child] = []

    def __enter__(self) -> "Children":
        self._stdin, self._held = os.pipe()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._held)
        os.close(self._stdin)
        for child in self._started:
            child.wait()

    def start(
        self,
        command: Sequence[str],
        output: IO[str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Child:
        """Start a command as `run_tied` does, with variables added to its environment."""
        variables = {**os.environ, **(environment or {}), PARENT_WATCHED: "1"}
        if output is None:
            variables.pop(FULL_ERROR, None)
        return self._kept(
            subprocess.Popen(
                command,
                stdin=self._stdin,
                stdout=output,
                stderr=output,
                env=variables,
                start_new_session=True,
            )
        )

    def fork(
        self, command: Sequence[str], output: IO[str], environment: Mapping[str, str]
    ) -> Child:
        """Do as `start` does with `python <script> <arguments>`, in a fork of this process.

        The fork has the imports of this process. Where `environment` has THREADS, torch
        computes with so many.
        """
        return self._kept(
            fork(self._run_script, list(command[1:]), output, environment)
        )

    def _run_script(
        self, arguments: list[str], output: IO[str], environment: Mapping[str, str]
    ) -> None:
        os.close(self._held)
        for number, source in enumerate(
            (self._stdin, output.fileno(), output.fileno())
        ):
            os.dup2(source, number)
        sys.stdout = sys.stderr = output
        os.environ.update(environment)
        os.environ[PARENT_WATCHED] = "1"
        if THREADS in environment:
            # OpenMP has read its variable by now. A parent that forks has imported torch; one
            # that does not can do without it.
            import torch

            torch.set_num_threads(int(environment[THREADS]))
        GlobalHydra.instance().clear()
        sys.argv[:] = arguments
        runpy.run_path(arguments[0], run_name="__main__")

    def _kept(self, process: "subprocess.Popen[Any] | BaseProcess") -> Child:
        self._started.append(child := Child(process))
        return child
