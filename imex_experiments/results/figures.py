"""Draw the figures of a sweep from the numbers of a comparison."""

import logging
from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from imex_experiments.errors import CheckpointError
from imex_experiments.plots.sweep import (
    cost_figure,
    heat_map_figure,
    learning_curves_figure,
    pareto_front,
)
from imex_experiments.results.comparison import IDLE, Comparison
from imex_experiments.results.statistics import summarise
from imex_experiments.results.table import FINISHED
from imex_experiments.results.text_tables import network_names, setting_names
from imex_experiments.runs.load import read_history

log = logging.getLogger(__name__)

COSTS = {
    "parameters": "parameters",
    "flops": "FLOPs per image",
    "train_seconds": "seconds of training",
}
"""Metric -> label of an axis."""

NEEDS = {
    "heat_map": "runs that differ in alpha or h",
    "learning_curves": "the metrics.csv of the best settings",
    "cost": f"{', '.join(COSTS)} in metrics.json",
}
"""Picture -> the data that it needs."""

Picture = tuple[Figure, pd.DataFrame]
"""A figure and the numbers that it shows."""


def pictures(comparison: Comparison) -> dict[str, Picture]:
    """Return the pictures by file name; one without data is left out."""
    drawn = {
        "heat_map": heat_maps(comparison),
        "learning_curves": learning_curves(comparison),
        "cost": costs(comparison),
    }
    return {name: picture for name, picture in drawn.items() if picture}


def heat_maps(comparison: Comparison) -> Picture | None:
    """Draw the metric over alpha and h, one map per network, the best setting framed.

    Networks without h or alpha are not shown.
    """
    settings = comparison.settings.dropna(subset=["h", "alpha"])
    alphas = settings.loc[settings["alpha"] > 0, "alpha"]
    if settings["h"].nunique() < 2 and alphas.nunique() < 2:
        return None
    named = _named(comparison).loc[settings.index]
    numbers = named.join([settings[["h", "alpha"]], _numbers(comparison)])
    if numbers["mean"].isna().all():
        return None
    fixed = settings.drop(columns=["model", "h", "alpha"])
    titles = [
        "\n".join([model, *(f"{key}={v}" for key, v in row.items() if v != IDLE)])
        for model, (_, row) in zip(settings["model"], fixed.iterrows(), strict=True)
    ]
    cells = numbers.assign(title=titles, chosen=numbers.index.isin(comparison.best))
    return heat_map_figure(cells, comparison.metric), numbers


def learning_curves(comparison: Comparison) -> Picture | None:
    """Draw the monitored metric over the epochs for the best setting of each network."""
    named = network_names(comparison)[comparison.best]
    numbers = curves(comparison, named, comparison.monitor)
    if numbers.empty:
        return None
    return learning_curves_figure(numbers, comparison.monitor), numbers


def curves(
    comparison: Comparison, named: Mapping[int, str], metric: str
) -> pd.DataFrame:
    """Return mean and deviation of a metric over the epochs, one row per curve and epoch.

    `named` maps the number of each setting to show to the title of its curve. A curve has
    the epochs that all runs of its setting have.
    """
    columns = ["curve", "epoch", "mean", "sd", "seeds"]
    tables = []
    for number, title in named.items():
        own = comparison.setting.index[comparison.setting == number]
        scores = _by_epoch(comparison.runs.loc[own], metric)
        if len(scores):
            table = summarise(scores.T).rename_axis("epoch").reset_index()
            tables.append(table.assign(curve=title).fillna({"sd": 0}))
    return pd.concat(tables)[columns] if tables else pd.DataFrame(columns=columns)


def costs(comparison: Comparison) -> Picture | None:
    """Draw the metric against parameters, FLOPs and training time of every setting."""
    cost = pd.DataFrame(
        {label: comparison.estimate(name)["mean"] for name, label in COSTS.items()}
    )
    numbers = _named(comparison).join([cost, _numbers(comparison)])
    numbers = numbers[(cost > 0).all(axis="columns") & numbers["mean"].notna()].copy()
    if numbers.empty:
        return None
    higher = comparison.higher_is_better
    score = numbers["mean"] if higher else -numbers["mean"]
    for label in cost:
        front = pareto_front(numbers[label].to_numpy(), score.to_numpy())
        numbers[f"on the front of {label}"] = numbers.index.isin(numbers.index[front])
    return cost_figure(numbers, list(cost), comparison.metric, higher), numbers


def _by_epoch(runs: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return a metric by epoch (rows) and seed (columns); repeated runs are averaged."""
    found: dict[tuple[int, str], pd.Series] = {}
    for run in runs[runs["state"] == FINISHED].itertuples():
        try:
            rows = read_history(run.folder)
            curve = {int(row["epoch"]): float(row[metric]) for row in rows}
        except (CheckpointError, KeyError, TypeError, ValueError) as error:
            log.warning("no learning curve of %s: %s", run.Index, error)
        else:
            found[run.seed, run.Index] = pd.Series(curve)
    # A run without any value is left out, as in the statistics.
    known = pd.DataFrame(found).dropna(axis="columns", how="all")
    common = known.dropna().sort_index()
    return common.T.groupby(level=0).mean().T


def _named(comparison: Comparison) -> pd.DataFrame:
    names = setting_names(comparison)
    return pd.DataFrame({"model": comparison.settings["model"], "setting": names})


def _numbers(comparison: Comparison) -> pd.DataFrame:
    estimate = comparison.estimate(comparison.metric)[["mean", "sd", "seeds", "lost"]]
    estimate.insert(0, "metric", comparison.metric)
    return estimate
