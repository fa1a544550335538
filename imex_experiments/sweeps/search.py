"""Search over settings: Optuna proposes a point, a run in a process of its own scores it."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite, isnan
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Override,
    RangeSweep,
)
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from imex_experiments.config.allow import allowed_by
from imex_experiments.config.arguments import keep_hooks, rewritten
from imex_experiments.config.build import locate
from imex_experiments.config.overrides import hydra_quoted
from imex_experiments.config.preflight import preflight
from imex_experiments.errors import ConfigError, NumericsError
from imex_experiments.installed import CONF
from imex_experiments.process.command import hush_lightning
from imex_experiments.runs.folder import alone_in
from imex_experiments.runs.resume import FREE
from imex_experiments.runs.status import status_if_readable
from imex_experiments.sweeps.jobs import run_in_child, score_of
from imex_experiments.sweeps.study import Space, Study, size

log = logging.getLogger(__name__)

OF_ONE_RUN = ("resume", "sweep.resume", "hydra.mode", "hydra.run.dir", "check")
"""Keys that mean nothing for the trials of a study."""


def tune(
    script: Path,
    folder: Path,
    words: Sequence[str],
    trials: int,
    config_dir: str | None = None,
) -> Study:
    """Join or begin the study in `folder`, until `trials` of its trials have ended.

    `words` are overrides of `script`; some of them are ranges: `model.h=choice(0.5,1)`,
    `model.alpha=tag(log,interval(1,100))`, `model.steps=range(1,4)`. Each trial is a run in
    `<folder>/<number>`, and the monitored validation metric is its score. A trial that
    diverges is pruned. Any number of processes may do this at once; a trial whose process
    was killed is taken up by another one, and its run resumed.

    The point of trial n follows from the trials that had ended before it, those that were
    running, and n: stopping and restarting a process does not change which points it tries.
    """
    space, fixed = parsed(words)
    options = [] if config_dir is None else [f"--config-dir={config_dir}"]
    mode = check(space, fixed, config_dir)
    if trials > size(space):
        trials = int(size(space))
        log.warning("the ranges have %d points: there are no more trials", trials)
    alike = [word for word in words if word.partition("=")[0].lstrip("+") not in FREE]
    study = Study(folder, mode, alike)
    for trial in study.trials(space, trials):
        _run(study, trial, script, [*options, *fixed, *written(trial.params)])
    return study


def parsed(words: Sequence[str]) -> tuple[Space, list[str]]:
    """Return the ranges among overrides by their keys, and all other overrides.

    Raises ConfigError for a range that has no values, and for keys of a single run.
    """
    keep_hooks([*words])
    space: dict[str, BaseDistribution] = {}
    fixed = []
    for override in OverridesParser.create().parse_overrides(rewritten([*words])):
        key = override.get_key_element()
        if key.lstrip("+") in OF_ONE_RUN:
            raise ConfigError(f"{override.input_line}: not for the trials of a study")
        if override.is_sweep_override():
            space[key] = values_of(override)
        else:
            fixed.append(override.input_line or "")
    if not space:
        raise ConfigError("nothing to tune: give a range, model.alpha=interval(1,100)")
    return space, fixed


def values_of(override: Override) -> BaseDistribution:
    """Return the values of a range as Optuna's distribution; ConfigError if it has none."""
    values: Any = override.value()
    logarithmic = "log" in getattr(values, "tags", ())
    try:
        if isinstance(values, IntervalSweep):
            low, high = float(values.start or 0), float(values.end or 0)
            if not isfinite(high - low):
                raise ValueError("expected finite ends")
            return FloatDistribution(low, high, log=logarithmic)
        if isinstance(values, RangeSweep):
            if not (isinstance(values.start, int) and isinstance(values.stop, int)):
                raise ValueError("a range is one of integers")
            step = int(values.step)
            numbers = range(values.start, values.stop, step)
            if step < 1 or not numbers:
                raise ValueError("expected range(<first>,<beyond the last>)")
            return IntDistribution(numbers[0], numbers[-1], logarithmic, step)
        if isinstance(values, ChoiceSweep):
            return CategoricalDistribution(
                list(dict.fromkeys(override.sweep_string_iterator()))
            )
        raise ValueError("use choice(...), range(...) or interval(...)")
    except ValueError as error:
        raise ConfigError(f"{override.input_line}: {error}") from error


def written(point: Mapping[str, Any]) -> list[str]:
    """Return a point as overrides."""
    return [f"{key}={value}" for key, value in point.items()]


def check(space: Space, fixed: Sequence[str], config_dir: str | None) -> str:
    """Check the ends of all ranges; return Optuna's word for the mode of the task.

    Raises ConfigError, which names the point, for the first that cannot be run.
    """
    searched = []
    if config_dir is not None:
        if not Path(config_dir).is_dir():
            raise ConfigError(f"--config-dir={config_dir}: no such folder")
        place = hydra_quoted(f"file://{Path(config_dir).resolve()}")
        searched = [f"hydra.searchpath=[{place}]"]
    hush_lightning()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for point in ends(space):
            words = [*fixed, *written(point), *searched]
            cfg = compose("train", words, return_hydra_config=True)
            try:
                preflight(cfg)
            except ConfigError as error:
                name = " ".join(written(point))
                raise ConfigError(f"point {name}: {error}") from error
    task: Any = locate(cfg.task._target_, "task", allowed_by(cfg))
    return {"max": "maximize", "min": "minimize"}[task.mode]


def ends(space: Space) -> Iterator[dict[str, Any]]:
    """Yield points with each choice and each end of a range, the others at their first."""
    at: dict[str, Sequence[Any]] = {}
    for key, distribution in space.items():
        if isinstance(distribution, CategoricalDistribution):
            at[key] = distribution.choices
        else:
            assert isinstance(distribution, FloatDistribution | IntDistribution)
            at[key] = sorted({distribution.low, distribution.high})
    first = {key: values[0] for key, values in at.items()}
    yield first
    for key, values in at.items():
        yield from ({**first, key: value} for value in values[1:])


def _run(study: Study, trial: FrozenTrial, script: Path, words: Sequence[str]) -> None:
    """Run a trial, or go on with it, and record its end in the study.

    A run that was interrupted stays in the study without an end, to be taken up again.
    """
    folder = study.folder / str(trial.number)
    with alone_in(folder, seconds=-1):  # a killed process leaves a run that soon ends
        before = status_if_readable(folder)
    status = run_in_child(str(script), words, folder)
    if status["state"] == "interrupted" and status != before:
        return
    state, score = TrialState.FAIL, None
    if status["state"] == "finished":
        score = score_of(folder, status)
        state = TrialState.FAIL if isnan(score) else TrialState.COMPLETE
    elif status["exit_code"] == NumericsError.exit_code:
        state = TrialState.PRUNED
    study.end(trial, state, score)
    log.info("trial %d %s: %s", trial.number, state.name.lower(), trial.params)
