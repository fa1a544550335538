"""Read the runs of sweeps into one table: configuration, status and metrics."""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
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

CONFIGURED = ("folder", "model", "data", "integrator", "seed", "h", "alpha")
ENDED = ("state", "reason", "monitor", "mode")
"""Columns before and after those of the overrides."""

OWN = {*CONFIGURED, *ENDED, "model.h", "model.alpha"}
OWN |= {"run", "setting", "implicit", "explicit", "partner"}
"""Names without a column of their own: they are above, or derived from the table."""

NO_SETTINGS = ("resume", "sweep.", "run_dir")
"""Prefixes of overrides without effect on the results of a run."""

VARYING = ("auto", "learned")
"""Values of h or alpha that let training choose it."""

INTEGRATOR = "model.integrator._target_"

NO_REASON = {
    "": f"not begun, or died before it wrote {STATUS}",
    "running": "still running, or killed",
}
"""State -> reason for a run that is not finished and recorded no reason."""


def runs_table(*sources: str | Path, allow: Sequence[str] = ()) -> pd.DataFrame:
    """Return one row for each run of the sweep folders and run folders given.

    The index is the name of the run, in natural order. The columns are

    - folder, model, data, integrator, seed, h, alpha: the values in force. alpha is 0
      without L. Both are NaN for a network that does not state them. If h or alpha is
      learned or chosen by training, the column has its first value, and `model` ends in
      "h learned" or "alpha auto";
    - every override that any of the runs has, such as `optimizer.lr`: the value in force
      as text, also in runs without the override;
    - state and reason: how the run ended; monitor and mode: the metric that chose its
      checkpoint;
    - the metrics of metrics.json as floats. All are NaN unless the state is "finished".

    A run with a file that cannot be read has the state "unreadable"; a warning names it.
    `allow` are packages of the user's own, whose classes the runs may name. Raises
    CheckpointError for a folder that is neither a sweep nor a run.
    """
    folders = run_folders(sources)
    given = {name: _overrides(folder) for name, folder in folders.items()}
    keys = sorted({key for overrides in given.values() for key in overrides} - OWN)
    read = [
        _read_run(folder, given[name], keys, allow) for name, folder in folders.items()
    ]
    columns = [*CONFIGURED, *keys, *ENDED]
    metrics = sorted({name for _, found in read for name in found} - {*columns})
    kinds = {"seed": "Int64"} | dict.fromkeys(["h", "alpha", *metrics], "float64")
    return pd.DataFrame(
        [found | row for row, found in read],
        index=pd.Index([*folders], name="run", dtype=object),
        columns=[*columns, *metrics],
    ).astype(kinds)


def override_columns(runs: pd.DataFrame) -> list[str]:
    """Return the names of the overrides in a table of runs."""
    return [*runs.loc[:, CONFIGURED[-1] : ENDED[0]].columns[1:-1]]


def metric_columns(runs: pd.DataFrame) -> list[str]:
    """Return the names of the metrics in a table of runs."""
    return [*runs.loc[:, ENDED[-1] :].columns[1:]]


def varied(runs: pd.DataFrame) -> list[str]:
    """Return the overrides whose known values differ between runs."""
    known = runs[runs["seed"].notna()]
    return [key for key in override_columns(runs) if known[key].nunique() > 1]


def _overrides(folder: Path) -> dict[str, str]:
    """Return the overrides of a run by key, as they were written."""
    try:
        overrides = read_yaml(folder / OVERRIDES)
    except CheckpointError:
        return {}  # a run that was killed while Hydra wrote its files
    listed = overrides if isinstance(overrides, list) else []
    pairs = [str(override).lstrip("+~").partition("=") for override in listed]
    return {key: value for key, _, value in pairs if not key.startswith(NO_SETTINGS)}


def _read_run(
    folder: Path,
    overrides: Mapping[str, str],
    keys: Iterable[str],
    allow: Sequence[str],
) -> tuple[dict[str, Any], dict[str, float]]:
    """Return the row of a run without its metrics, and its metrics.

    Columns of a file that cannot be read stay empty.
    """
    row: dict[str, Any] = dict.fromkeys([*keys, "integrator", *ENDED], "")
    row |= {"folder": str(folder), "model": "?", "data": "?"}
    try:
        with refusing(str(HYDRA)):
            config = dotted(read_yaml(folder / CONFIG))
            row |= _configured(folder, config, overrides, keys)
        with refusing(str(STATUS)):
            row |= _ended(folder, config, allow)
        with refusing(str(METRICS)):
            return row, read_metrics(folder) if row["state"] == FINISHED else {}
    except (OSError, RunError) as error:
        row |= {"state": UNREADABLE, "reason": one_line(error)}
        log.warning("skipped %s: %s", folder, row["reason"])
        return row, {}


def _configured(
    folder: Path,
    config: Mapping[str, Any],
    overrides: Mapping[str, str],
    keys: Iterable[str],
) -> dict[str, Any]:
    """Return the values recorded in .hydra/, which is written before the run begins."""
    if missing := {"model", "seed"} - {key.partition(".")[0] for key in config}:
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
        if config.get(f"model.{name}") in VARYING
    ]
    given = {**overrides, **config, **choices}
    return {
        "model": ", ".join([str(choices.get("model", "?")), *varying]),
        "data": str(choices.get("data", "?")),
        "integrator": str(config.get(INTEGRATOR, "")).rpartition(".")[-1],
        "seed": seed,
        "h": _number(config.get("model.h"), FIRST_H),
        **{key: _text(given[key]) for key in keys if key in given},
    }


def _ended(
    folder: Path, config: Mapping[str, Any], allow: Sequence[str]
) -> dict[str, Any]:
    """Return the values in status.json; without one the run ended before writing it."""
    status = read_status(folder)
    state = status.get("state") or "failed"
    if state == FINISHED and not {"monitor", "mode"} <= status.keys():
        raise ValueError("names no monitored metric")
    own_h = {} if "model.h" in config else {"h": _number(status.get("h"))}
    return {
        **own_h,
        "alpha": _number(status["alpha"])
        if "alpha" in status
        else _alpha(config, allow),
        "state": state,
        "reason": status.get("reason") or NO_REASON.get(state if status else "", ""),
        "monitor": status.get("monitor") or "",
        "mode": status.get("mode") or "",
    }


def _alpha(config: Mapping[str, Any], allow: Sequence[str]) -> float:
    """Return the alpha of a run that ended before it recorded one."""
    path = config.get(INTEGRATOR)
    scheme = locate(path, INTEGRATOR, (*REBUILDING, *allow)) if path else None
    implicit = getattr(scheme, "uses_operator", False)
    return _number(config.get("model.alpha"), FIRST_ALPHA) if implicit else 0.0


def _number(value: object, first: float = math.nan) -> float:
    """Return a number; `first` for one that training chooses, NaN for None."""
    if value is None:
        return math.nan
    return first if value in VARYING else float(str(value))


def _text(value: object) -> str:
    """Return a value as text; 1 and 1.0 give the same."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
