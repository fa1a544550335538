"""The runs of sweeps as one table: what each was asked, how it ended, what it measured."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from imex_experiments.config.build import REBUILDING, locate, refusing
from imex_experiments.config.interpolations import dotted
from imex_experiments.errors import CheckpointError, RunError, one_line
from imex_experiments.networks import FIRST_ALPHA, FIRST_H
from imex_experiments.results.sources import run_folders
from imex_experiments.runs.layout import (
    CHOICES,
    CONFIG,
    HYDRA,
    METRICS,
    OVERRIDES,
    STATUS,
)
from imex_experiments.runs.load import read_metrics
from imex_experiments.runs.plain import LARGEST, read_yaml
from imex_experiments.runs.status import read_status

log = logging.getLogger(__name__)

FINISHED, UNREADABLE = "finished", "unreadable"

ASKED = ("folder", "model", "data", "integrator", "seed", "h", "alpha")
ENDED = ("state", "reason", "monitor", "mode")
"""Columns before and behind those of the overrides."""

OWN = {*ASKED, *ENDED, "model.h", "model.alpha"}
OWN |= {"run", "setting", "implicit", "explicit", "partner"}
"""Names that an override has no column for: theirs are above, or made of the table."""

NO_SETTINGS = ("resume", "sweep.", "run_dir")
"""Beginnings of overrides that say how a run is made, not what it computes."""

VARYING = ("auto", "learned")
"""Words for an h or alpha that training varies."""

INTEGRATOR = "model.integrator._target_"

UNSAID = {"": f"died before it wrote {STATUS}", "running": "still running, or killed"}
"""Why a run is not finished, where status.json does not say so itself."""


def runs_table(*sources: str | Path) -> pd.DataFrame:
    """Return one row for each run of the sweep folders and run folders given.

    The index is the run's name, in natural order. The columns are

    - folder, model, data, integrator, seed, h, alpha: the values in force; alpha is 0
      without L, and where h or alpha is learned or chosen by training it is the first
      value, and `model` says so;
    - every override that any of the runs was given, such as `optimizer.lr`: the text of
      the value in force, also in runs that were not given it;
    - state, reason, monitor, mode: how it ended, and what chose its checkpoint;
    - the metrics of metrics.json as floats, NaN where a run has none: all of them unless
      the state is "finished".

    A file that cannot be read is named in a warning; its run is then "unreadable".
    CheckpointError for a folder that is neither a sweep nor a run.
    """
    folders = run_folders(sources)
    asked = {name: _asked(folder) for name, folder in folders.items()}
    keys = sorted({key for given in asked.values() for key in given} - OWN)
    read = [_read_run(folder, asked[name], keys) for name, folder in folders.items()]
    columns = [*ASKED, *keys, *ENDED]
    metrics = sorted({name for _, found in read for name in found} - {*columns})
    kinds = {"seed": "Int64"} | dict.fromkeys(["h", "alpha", *metrics], "float64")
    return pd.DataFrame(
        [found | row for row, found in read],
        index=pd.Index([*folders], name="run", dtype=object),
        columns=[*columns, *metrics],
    ).astype(kinds)


def override_columns(runs: pd.DataFrame) -> list[str]:
    """Return the names of the overrides in a table of runs."""
    return [*runs.loc[:, ASKED[-1] : ENDED[0]].columns[1:-1]]


def metric_columns(runs: pd.DataFrame) -> list[str]:
    """Return the names of the metrics in a table of runs."""
    return [*runs.loc[:, ENDED[-1] :].columns[1:]]


def varied(runs: pd.DataFrame) -> list[str]:
    """Return the overrides whose values differ between runs of which they are known."""
    known = runs[runs["h"].notna()]
    return [key for key in override_columns(runs) if known[key].nunique() > 1]


def _asked(folder: Path) -> dict[str, str]:
    """Return the overrides that a run was given, key to value, as they were written."""
    try:
        words = read_yaml(folder / OVERRIDES)
    except CheckpointError:
        return {}  # as a run that was killed while Hydra wrote its files
    listed = words if isinstance(words, list) else []
    pairs = [str(word).lstrip("+~").partition("=") for word in listed]
    return {key: value for key, _, value in pairs if not key.startswith(NO_SETTINGS)}


def _read_run(
    folder: Path, asked: Mapping[str, str], keys: Iterable[str]
) -> tuple[dict[str, Any], dict[str, float]]:
    """Return all but the metrics of a run, as far as it can be read, and its metrics."""
    row: dict[str, Any] = dict.fromkeys([*keys, "integrator", *ENDED], "")
    row |= {"folder": str(folder), "model": "?", "data": "?"}
    try:
        with refusing(str(HYDRA)):
            config = dotted(read_yaml(folder / CONFIG))
            row |= _configured(folder, config, asked, keys)
        with refusing(str(STATUS)):
            row |= _ended(folder, config)
        with refusing(str(METRICS)):
            return row, read_metrics(folder) if row["state"] == FINISHED else {}
    except (OSError, RunError) as error:
        row |= {"state": UNREADABLE, "reason": one_line(error)}
        log.warning("skipped %s: %s", folder, row["reason"])
        return row, {}


def _configured(
    folder: Path,
    config: Mapping[str, Any],
    asked: Mapping[str, str],
    keys: Iterable[str],
) -> dict[str, Any]:
    """Return the values in .hydra/, which is there before the run begins."""
    needed = {"model.h", "model.alpha", "seed"}
    if missing := needed - config.keys():
        raise ValueError(f"{CONFIG.name} has no {', '.join(sorted(missing))}")
    try:
        choices = dict(read_yaml(folder / CHOICES)["hydra"]["runtime"]["choices"])
    except KeyError as error:
        raise ValueError(f"{CHOICES.name} has no {error}") from error
    seed = int(str(config["seed"]))
    if abs(seed) >= LARGEST:
        raise ValueError(f"seed={seed}: an integer of more than 64 bits")
    varying = [
        f"{name} {config[f'model.{name}']}"
        for name in ("h", "alpha")
        if config[f"model.{name}"] in VARYING
    ]
    given = {**asked, **config, **choices}
    return {
        "model": ", ".join([str(choices.get("model", "?")), *varying]),
        "data": str(choices.get("data", "?")),
        "integrator": str(config.get(INTEGRATOR, "")).rpartition(".")[-1],
        "seed": seed,
        "h": _number(config["model.h"], FIRST_H),
        **{key: _word(given[key]) for key in keys if key in given},
    }


def _ended(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what status.json has; without one the run died before it could write it."""
    status = read_status(folder)
    state = status.get("state") or "failed"
    if state == FINISHED and not {"monitor", "mode"} <= status.keys():
        raise ValueError("names no monitored metric")
    return {
        "alpha": float(status["alpha"]) if "alpha" in status else _alpha(config),
        "state": state,
        "reason": status.get("reason") or UNSAID.get(state if status else "", ""),
        "monitor": status.get("monitor") or "",
        "mode": status.get("mode") or "",
    }


def _alpha(config: Mapping[str, Any]) -> float:
    """Return the alpha in force for a run that ended before it recorded it."""
    path = config.get(INTEGRATOR)
    scheme = locate(path, INTEGRATOR, REBUILDING) if path else None
    implicit = getattr(scheme, "uses_operator", False)
    return _number(config["model.alpha"], FIRST_ALPHA) if implicit else 0.0


def _number(value: object, first: float) -> float:
    """Return a value of the configuration; for one that training varies, the first."""
    return first if value in VARYING else float(str(value))


def _word(value: object) -> str:
    """Return a value as one would write it; 1 and 1.0 are the same."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
