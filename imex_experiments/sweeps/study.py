"""A study that several processes share, also of several machines: a folder with a journal.

The journal is Optuna's, a file to which lines are added. Every write is made under the lock of
the folder, which network file systems pass between machines, as they do for run folders.
SQLite would rewrite pages of a file in place there, and several machines that cache these pages
can damage it. Optuna's own lock of a journal is a file; one that a killed process leaves
behind keeps all others waiting for half a minute.
"""

import logging
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, product
from math import prod
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from imex_experiments.errors import CheckpointError, ConfigError
from imex_experiments.files import write_table
from imex_experiments.runs.folder import alone_in, make_private

log = logging.getLogger(__name__)

JOURNAL = "study.journal"
HELD = ".trial.lock"
"""The lock in the folder of a trial, of the process that is at it."""

OVERRIDES = "overrides"
"""The attribute of a study that has the overrides of its command."""

RESULTS = "results.csv"
PROPOSALS = 20
"""Points of which the sampler may propose one that a trial has already."""

POLL = 1.0
"""Seconds between looks at the trials of other processes."""

Space = Mapping[str, BaseDistribution]
"""Key of an override -> the values from which the search chooses."""


class Study:
    """The study of a folder: `trials` yields those that this process is to run."""

    def __init__(self, folder: Path, direction: str, overrides: Sequence[str]) -> None:
        """Open the study of a folder, or begin it.

        Raises ConfigError if it was begun with other overrides, or if the folder has other
        files, and CheckpointError for a journal that cannot be read.
        """
        self.folder = folder
        make_private(folder, "study")
        with self._alone():
            journal = folder / JOURNAL
            if not journal.exists() and any(folder.glob("[!.]*")):
                raise ConfigError(
                    f"{folder}: has files, but no {JOURNAL}; choose another study=<name>"
                )
            try:
                lock: Any = _LockedAnyway()
                backend = JournalFileBackend(str(journal), lock_obj=lock)
                self.optuna = optuna.create_study(
                    storage=JournalStorage(backend),
                    study_name="study",  # not the folder's, which may be renamed
                    direction=direction,
                    load_if_exists=True,
                )
            except (ValueError, LookupError, TypeError, AssertionError) as error:
                raise CheckpointError(f"{journal}: damaged ({error})") from error
            before = self.optuna.user_attrs.get(OVERRIDES)
            if before is None:
                self.optuna.set_user_attr(OVERRIDES, list(overrides))
            elif differing := {*before} ^ {*overrides}:
                raise ConfigError(
                    f"{folder}: has trials with other overrides "
                    f"({', '.join(sorted(differing))}); choose another study=<name>"
                )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Lock the study, and cut off the line that a killed process left unfinished."""
        with alone_in(self.folder, kind="study"):
            if (journal := self.folder / JOURNAL).exists():
                with journal.open("rb+") as file:
                    file.truncate(file.read().rfind(b"\n") + 1)
            yield

    def trials(self, space: Space, number: int) -> Iterator[FrozenTrial]:
        """Yield trials until `number` of the study have ended, those of others included.

        A trial is this process's alone until the next one is taken. One that another
        process left, because it was killed, comes before a new one.
        """
        waits = False
        while True:
            with self._alone():
                running = self.optuna.get_trials(states=[TrialState.RUNNING])
                taken = next(filter(None, map(self._take, running)), None)
                if taken is None and len(self.optuna.trials) < number:
                    taken = self._take(self._new(space))
                if taken is None and not running:
                    self._write_results()  # a process may have been killed before
                    return
            if taken is not None:
                trial, lock = taken
                try:
                    yield trial
                finally:
                    lock.release()
                continue
            if not waits:
                log.info("waiting for the trials of other processes")
            waits = True
            time.sleep(POLL)

    def _take(self, trial: FrozenTrial) -> tuple[FrozenTrial, FileLock] | None:
        """Lock a trial for this process; None if another process is at it."""
        run = self.folder / str(trial.number)
        run.mkdir(exist_ok=True)
        try:
            lock = FileLock(run / HELD)
            lock.acquire(timeout=0)
        except Timeout:
            return None
        return trial, lock

    def _new(self, space: Space) -> FrozenTrial:
        """Add a trial with its point, in one line of the journal."""
        point = new_point(self.optuna, space)
        running = TrialState.RUNNING
        self.optuna.add_trial(
            create_trial(state=running, params=point, distributions={**space})
        )
        return self.optuna.trials[-1]

    def end(
        self, trial: FrozenTrial, state: TrialState, score: float | None = None
    ) -> None:
        """Record the end of a trial; the score is for a complete one alone."""
        value = score if state is TrialState.COMPLETE else None
        with self._alone():
            self.optuna.tell(trial.number, value, state)
            self._write_results()

    def _write_results(self) -> None:
        """Write a row per trial: its number, state, score and settings."""
        rows = [
            {
                "trial": trial.number,
                "state": trial.state.name.lower(),
                "score": trial.value,
                **trial.params,
            }
            for trial in self.optuna.trials
        ]
        write_table(self.folder / RESULTS, rows)


class _LockedAnyway:
    """The lock of a journal that is written within `Study._alone` only."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def size(space: Space) -> float:
    """Return the number of points of a space, infinite if a range is continuous."""
    return prod(
        float("inf") if (values := listed(d)) is None else len(values)
        for d in space.values()
    )


def listed(distribution: BaseDistribution) -> Sequence[Any] | None:
    """Return the values of a distribution, None if they are not countable."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    if isinstance(distribution, IntDistribution):
        return range(distribution.low, distribution.high + 1, distribution.step)
    assert isinstance(distribution, FloatDistribution)
    return (distribution.low,) if distribution.single() else None


def new_point(study: optuna.Study, space: Space) -> dict[str, Any]:
    """Return a point that no trial has, with a value for each key of the space.

    TPE proposes it from the trials that have ended. Those that are running count as bad ones
    (constant liar), so that processes do not crowd at one place. The sampler is seeded by the
    number of trials. Where it proposes known points only, which it may do in a space of few
    points, the first unknown one is taken.
    """
    known = [trial.params for trial in study.trials]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        sampler = TPESampler(seed=len(known), constant_liar=True)
    asking = create_trial(state=TrialState.RUNNING)
    proposed = (
        {
            key: sampler.sample_independent(study, asking, key, distribution)
            for key, distribution in space.items()
        }
        for _ in range(PROPOSALS)
    )
    values = [listed(distribution) or () for distribution in space.values()]
    every = (dict(zip(space, point, strict=True)) for point in product(*values))
    return next(point for point in chain(proposed, every) if point not in known)
