"""Check a run or a sweep before it starts, as Hydra's callback; report a sweep at its end."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from shlex import join
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from imex_experiments.config.allow import at_keyboard
from imex_experiments.config.overrides import hydra_quoted
from imex_experiments.errors import (
    RunError,
    SweepError,
    exit_code,
    is_interrupt,
    one_line,
)
from imex_experiments.installed import command_line
from imex_experiments.process.interrupts import INTERRUPTS
from imex_experiments.runs.folder import alone_in, make_private
from imex_experiments.sweeps.jobs import record_lost
from imex_experiments.sweeps.launch import end_launcher, start_launcher, write_launch
from imex_experiments.sweeps.plan import checked, show_plan
from imex_experiments.sweeps.points import (
    make_folders,
    name_folders_by_swept,
    points_of,
)
from imex_experiments.training.prepared import start, stop_if_only_checking

_sweep = ExitStack()
"""The report and the lock of the sweep that this process launches, which its end closes. It
is no attribute of the hooks, because Ray copies them to its workers."""


class Hooks(Callback):
    """Checks that run before Hydra makes a folder.

    With `check=true` the command ends after the checks. One process at a time launches a
    sweep: it holds the sweep's lock until the report is written.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        with _ending(), INTERRUPTS.raised():
            start(config)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        sweep = Path(config.hydra.sweep.dir)
        new = not sweep.exists()
        with _ending():
            points = points_of(config)
            largest = checked(points)
            name_folders_by_swept(config, points)
            show_plan(config, points, largest, new)
        stop_if_only_checking(config)
        with _ending():
            make_private(sweep, "hydra.sweep.dir")
            _sweep.enter_context(alone_in(sweep, seconds=1, kind="sweep"))
            write_launch(sweep, config)
            start_launcher(config.hydra.launcher)
            make_folders(points)
            _sweep.enter_context(_reported(sweep, config))


@contextmanager
def sweep_reported() -> Iterator[None]:
    """Enclose a command, and report the sweep that it launches, if any, however it ends."""
    global _sweep
    with ExitStack() as _sweep:  # a new one: this process may be a fork of a launcher
        yield


@contextmanager
def _reported(sweep: Path, config: DictConfig) -> Iterator[None]:
    """Write and print the report of a sweep at the end of the body, whatever it raises.

    SweepError if not all jobs finished. Errors of this package and signals go on as they
    are, and the line of that error is printed.
    """
    try:
        yield
    except BaseException as error:
        end_launcher(config.hydra.launcher)
        lost = _report(sweep, config)
        if isinstance(error, RunError | SystemExit) or is_interrupt(error):
            print(lost)
        elif lost:
            reason = f"{lost} (hydra.launcher: {one_line(error)[:200]})"
            raise SweepError(reason) from error
        raise
    if lost := _report(sweep, config):
        raise SweepError(lost)


def _report(sweep: Path, config: DictConfig) -> str:
    """Write and print the report of a sweep; return a line on the jobs without a result."""
    # A single run starts without what only a sweep's end needs: pandas, scipy, figures.
    from imex_experiments.results.report import report, report_failures
    from imex_experiments.results.sources import run_folders
    from imex_experiments.results.table import FINISHED, runs_table

    record_lost(run_folders([sweep]).values())
    runs = runs_table(sweep, allow=config.allow)
    failed = int((runs["state"] != FINISHED).sum())
    if failed < len(runs):
        report(runs, [sweep], sweep)
    else:
        report_failures(runs, sweep)
    if not failed:
        return ""
    more = at_keyboard(config, config.hydra)
    again = f"sweep.resume={hydra_quoted(Path(os.path.relpath(sweep)))}"
    return (
        f"{failed} of {len(runs)} jobs have no result; run only those with: "
        f"{command_line('train')} {join([again, *more])}"
    )


@contextmanager
def _ending() -> Iterator[None]:
    """Turn an exception into SystemExit: Hydra makes a warning of any other."""
    try:
        yield
    except Exception as error:
        raise SystemExit(exit_code(error)) from error
