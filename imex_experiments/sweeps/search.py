"""Search over settings: Optuna proposes a point, a run in a process of its own scores it."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Override,
    RangeSweep,
)
from optuna.trial import BaseTrial, FixedTrial, TrialState

from imex_experiments.config.allow import allowed_by
from imex_experiments.config.build import REBUILDING, locate
from imex_experiments.errors import ConfigError, NumericsError
from imex_experiments.installed import CONF
from imex_experiments.runs.folder import alone_in
from imex_experiments.sweeps.jobs import run_in_child, score_of

log = logging.getLogger(__name__)


def tune(script: Path, folder: Path, words: Sequence[str], trials: int) -> optuna.Study:
    """Continue the study in `folder` until `trials` of its trials have ended.

    `words` are overrides of `script`; some of them are ranges: `model.h=choice(0.5,1)`,
    `model.alpha=tag(log,interval(1,100))`, `model.steps=range(1,4)`. Each trial is a run in
    `<folder>/<number>`, and the monitored validation metric is its score. A trial that
    diverges is pruned; one that was cut off is finished first. The study is in
    `<folder>/study.db`.

    The point of trial n follows from the trials before it and from n, which seeds the
    sampler: stopping and restarting a study does not change which points it tries.
    """
    overrides = OverridesParser.create().parse_overrides(list(words))
    space = [override for override in overrides if override.is_sweep_override()]
    if not space:
        raise ConfigError("nothing to tune: give a range, model.alpha=interval(1,100)")
    fixed = [o.input_line or "" for o in overrides if not o.is_sweep_override()]
    folder.mkdir(parents=True, exist_ok=True)
    with alone_in(folder, seconds=1):
        study = optuna.create_study(
            study_name=folder.name,
            storage=f"sqlite:///{folder.resolve()}/study.db",
            direction=direction(fixed),
            load_if_exists=True,
        )
        cut_off = study.get_trials(states=[TrialState.RUNNING])
        for old in cut_off:
            point = [suggest(FixedTrial(old.params), o) for o in space]
            _answer(study, old.number, script, folder, [*fixed, *point])
        while (number := len(study.trials)) < trials:
            study.sampler = optuna.samplers.TPESampler(seed=number)
            trial = study.ask()
            point = [suggest(trial, override) for override in space]
            _answer(study, trial.number, script, folder, [*fixed, *point])
    return study


def suggest(trial: BaseTrial, override: Override) -> str:
    """Return an override with a value from the range of another; ConfigError if it has none."""
    key, values = override.get_key_element(), override.value()
    name, logarithmic = key.lstrip("+"), "log" in getattr(values, "tags", ())
    choice: Any
    if isinstance(values, IntervalSweep):
        low, high = float(values.start or 0), float(values.end or 0)
        choice = trial.suggest_float(name, low, high, log=logarithmic)
    elif isinstance(values, RangeSweep):
        if not (isinstance(values.start, int) and isinstance(values.stop, int)):
            raise ConfigError(f"{override.input_line}: a range is one of integers")
        step = int(values.step)
        last = values.start + (values.stop - 1 - values.start) // step * step
        choice = trial.suggest_int(name, values.start, last, step=step)
    elif isinstance(values, ChoiceSweep):
        choice = trial.suggest_categorical(name, list(override.sweep_string_iterator()))
    else:
        raise ConfigError(
            f"{override.input_line}: use choice(...), range(...) or interval(...)"
        )
    return f"{key}={choice}"


def direction(words: Sequence[str]) -> str:
    """Return Optuna's word for the mode of the configured task: maximize or minimize."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides=list(words))
    task: Any = locate(cfg.task._target_, "task", allowed_by(cfg, REBUILDING))
    return {"max": "maximize", "min": "minimize"}[task.mode]


def _answer(
    study: optuna.Study, number: int, script: Path, folder: Path, words: Sequence[str]
) -> None:
    run = folder / str(number)
    run.mkdir(exist_ok=True)
    status = run_in_child(str(script), words, run)
    if status["state"] == "finished":
        study.tell(number, score_of(run, status))
    elif status["exit_code"] == NumericsError.exit_code:
        study.tell(number, state=TrialState.PRUNED)
    else:
        study.tell(number, state=TrialState.FAIL)
    trial = study.trials[number]
    log.info("trial %d %s: %s", number, trial.state.name.lower(), trial.params)
