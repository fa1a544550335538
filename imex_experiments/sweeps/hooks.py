"""Hydra's callback: check a run or a sweep before it starts, report a sweep at its end."""

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
from imex_experiments.errors import SweepError, exit_code
from imex_experiments.installed import command_line
from imex_experiments.process.interrupts import INTERRUPTS
from imex_experiments.runs.folder import alone_in, make_private
from imex_experiments.sweeps.launch import start_launcher, write_launch
from imex_experiments.sweeps.plan import (
    checked,
    name_folders_by_swept,
    points_of,
    show_plan,
)
from imex_experiments.training.prepared import start, stop_if_only_checking

_held = ExitStack()
"""The lock of the sweep that this process launches. It is no attribute of the hooks, because
Ray copies them to its workers."""


class Hooks(Callback):
    """Checks that run before Hydra makes a folder, and the report at the end of a sweep.

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
            _held.enter_context(alone_in(sweep, seconds=1, kind="sweep"))
            write_launch(sweep, config)
            start_launcher(config.hydra.launcher)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        with _ending(), _held:
            end_sweep(Path(config.hydra.sweep.dir), config)


def end_sweep(sweep: Path, config: DictConfig) -> None:
    """Write and print the report of a sweep; SweepError if not all jobs finished."""
    # A single run starts without what only a sweep's end needs: pandas, scipy, figures.
    from imex_experiments.results.report import report
    from imex_experiments.results.table import FINISHED, runs_table

    runs = runs_table(sweep, allow=config.allow)
    failed = int((runs["state"] != FINISHED).sum())
    if failed < len(runs):
        report(runs, [sweep], sweep)
    if failed:
        more = at_keyboard(config, config.hydra)
        again = f"sweep.resume={hydra_quoted(Path(os.path.relpath(sweep)))}"
        raise SweepError(
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
