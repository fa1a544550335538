"""The pictures of a sweep: which numbers of a comparison each figure shows."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from imex_experiments.errors import CheckpointError
from imex_experiments.plots.sweep import (
    Band,
    HeatMap,
    Point,
    cost_figure,
    heat_map_figure,
    learning_curves_figure,
    pareto_front,
)
from imex_experiments.results.comparison import Comparison
from imex_experiments.results.statistics import Group
from imex_experiments.results.tables import setting_name
from imex_experiments.runs.load import read_history

log = logging.getLogger(__name__)

COSTS = {
    "parameters": "parameters",
    "flops": "FLOPs per image",
    "train_seconds": "seconds of training",
}
"""Metric -> its name on an axis."""

Rows = list[dict[str, Any]]

NEEDS = {
    "heat_map": "runs that differ in alpha or h",
    "learning_curves": "the metrics.csv of the best settings",
    "cost": f"{', '.join(COSTS)} in metrics.json",
}
"""Picture -> what it is drawn of."""

Picture = tuple[Figure, Rows]
"""A figure and the numbers that it shows."""


def pictures(comparison: Comparison) -> dict[str, Picture]:
    """File name to picture, without those that have nothing to show."""
    drawn = {
        "heat_map": heat_maps(comparison),
        "learning_curves": learning_curves(comparison),
        "cost": costs(comparison),
    }
    return {name: picture for name, picture in drawn.items() if picture}


def heat_maps(comparison: Comparison) -> Picture | None:
    """The metric over alpha and h, one map per network; the chosen setting is framed."""
    every = [group.setting for group in comparison.groups]
    alphas = {s.alpha for s in every if s.alpha > 0}
    if len({s.h for s in every}) < 2 and len(alphas) < 2:
        return None
    panels: dict[str, list[Group]] = {}
    for group in comparison.groups:
        fixed = [f"{key}={value}" for key, value in group.setting.others]
        title = "\n".join([group.setting.network, *fixed])
        panels.setdefault(title, []).append(group)
    maps = [_heat_map(title, found, comparison) for title, found in panels.items()]
    if not any(np.isfinite(panel.mean).any() for panel in maps):
        return None
    rows = [
        _named(comparison, group)
        | {"h": group.setting.h, "alpha": group.setting.alpha}
        | _numbers(comparison, group)
        for group in comparison.groups
    ]
    return heat_map_figure(maps, comparison.metric), rows


def learning_curves(comparison: Comparison) -> Picture | None:
    """The monitored metric over the epochs for the best setting of each network."""
    named = {}
    for network, group in comparison.best.items():
        name = setting_name(comparison, group.setting)
        named[f"{network}, {name}" if name else network] = group
    bands, rows = curve_bands(named, comparison.monitor)
    return (learning_curves_figure(bands, comparison.monitor), rows) if bands else None


def curve_bands(named: Mapping[str, Group], metric: str) -> tuple[list[Band], Rows]:
    """Mean and deviation of a metric over the epochs that all seeds of a group have."""
    bands: list[Band] = []
    rows: Rows = []
    for title, group in named.items():
        if curves := _curves(group, metric):
            epochs = sorted(set.intersection(*(set(curve) for curve in curves)))
            values = np.array([[curve[e] for e in epochs] for curve in curves])
            mean = values.mean(0)
            sd = values.std(0, ddof=1) if len(values) > 1 else np.zeros(len(epochs))
            bands.append(Band(title, np.array(epochs), mean, sd))
            rows += [
                {"curve": title, "epoch": e, "mean": m, "sd": s, "seeds": len(values)}
                for e, m, s in zip(epochs, mean.tolist(), sd.tolist(), strict=True)
            ]
    return bands, rows


def costs(comparison: Comparison) -> Picture | None:
    """The metric against parameters, arithmetic and time of every setting."""
    points: list[Point] = []
    rows: Rows = []
    for group in comparison.groups:
        found = {name: group.estimate(name) for name in COSTS}
        cost = {COSTS[name]: e.mean for name, e in found.items() if e and e.mean > 0}
        score = group.estimate(comparison.metric)
        if score and len(cost) == len(COSTS):
            points.append(
                Point(
                    group.setting.network,
                    cost,
                    score.mean,
                    np.nan if score.sd is None else score.sd,
                )
            )
            rows.append(_named(comparison, group) | cost | _numbers(comparison, group))
    if not points:
        return None
    sign = 1 if comparison.higher_is_better() else -1
    scores = sign * np.array([point.mean for point in points])
    for label in COSTS.values():
        front = pareto_front(np.array([p.costs[label] for p in points]), scores)
        for index, row in enumerate(rows):
            row[f"on the front of {label}"] = index in front
    figure = cost_figure(points, comparison.metric, comparison.higher_is_better())
    return figure, rows


def _heat_map(title: str, groups: Sequence[Group], comparison: Comparison) -> HeatMap:
    hs = sorted({group.setting.h for group in groups})
    alphas = sorted({group.setting.alpha for group in groups})
    mean = np.full((len(alphas), len(hs)), np.nan)
    lost = np.zeros(mean.shape, dtype=int)
    chosen = None
    for group in groups:
        cell = alphas.index(group.setting.alpha), hs.index(group.setting.h)
        estimate = group.estimate(comparison.metric)
        mean[cell] = estimate.mean if estimate else np.nan
        lost[cell] = group.lost(comparison.metric)
        if group is comparison.best.get(group.setting.network):
            chosen = cell
    return HeatMap(title, alphas if alphas != [0] else [], hs, mean, lost, chosen)


def _curves(group: Group, metric: str) -> list[dict[int, float]]:
    """Epoch to value, one curve per seed, repeats averaged."""
    by_seed: dict[int | None, list[dict[int, float]]] = {}
    for job in group.jobs:
        if job.finished:
            try:
                curve = {
                    int(row["epoch"]): float(row[metric])
                    for row in read_history(job.folder)
                }
            except (CheckpointError, KeyError, TypeError, ValueError) as error:
                log.warning("no learning curve of %s: %s", job.run, error)
            else:
                by_seed.setdefault(job.seed, []).append(curve)
    return [
        {
            e: float(np.mean([c[e] for c in repeats]))
            for e in set.intersection(*map(set, repeats))
        }
        for repeats in by_seed.values()
    ]


def _named(comparison: Comparison, group: Group) -> dict[str, Any]:
    name = setting_name(comparison, group.setting)
    return {"model": group.setting.network, "setting": name}


def _numbers(comparison: Comparison, group: Group) -> dict[str, Any]:
    estimate = group.estimate(comparison.metric)
    return {
        "metric": comparison.metric,
        "mean": estimate.mean if estimate else None,
        "sd": estimate.sd if estimate else None,
        "seeds": estimate.n if estimate else 0,
        "lost": group.lost(comparison.metric),
    }
