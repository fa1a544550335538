"""Compute statistics over seeds, and paired differences of implicit and explicit networks."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from imex_experiments.errors import CheckpointError, ConfigError, nearest
from imex_experiments.results.sources import natural
from imex_experiments.results.statistics import summarise
from imex_experiments.results.table import FINISHED, UNREADABLE, metric_columns, varied

NETWORK_OVERRIDES = ("model/integrator", "model.integrator._target_")
"""Overrides that choose the network, as `model` does, and so are part of its name."""

OPERATOR_OVERRIDES = ("model/diffusion", "model.diffusion.")
"""Prefixes of overrides of L, which have no effect for alpha = 0."""

IDLE = "-"
"""The value of an override that has no effect."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Runs of one task, grouped by setting.

    A setting is one choice of all values that were varied, except for the seed. `settings`
    has one row per setting, numbered from 0 in the order of the models' first runs: model
    (with its integrator where integrators differ), the other varied overrides, h and
    alpha. `setting` has the number of the setting of each run. The best settings have the
    best `monitor`, which is "max" or "min" according to `mode`; `metric` is compared.
    """

    runs: pd.DataFrame
    settings: pd.DataFrame
    setting: pd.Series
    monitor: str
    mode: str
    metric: str

    def scores(self, metric: str) -> pd.DataFrame:
        """Return a metric by seed (rows) and setting (columns), NaN without a value.

        Repeated runs of a seed are averaged, because they are not independent samples.
        """
        runs = self.runs.loc[self.setting.index]
        groups = self._values(metric).groupby([self.setting, runs["seed"]])
        return groups.mean().unstack(0).reindex(columns=self.settings.index)

    def estimate(self, metric: str) -> pd.DataFrame:
        """Return the statistics of a metric over the seeds of every setting.

        `lost` counts the runs without a finite value: they failed, diverged, were
        interrupted or cannot be read.
        """
        lost = self._values(metric).isna().groupby(self.setting).sum()
        return summarise(self.scores(metric)).assign(lost=lost)

    @cached_property
    def best(self) -> pd.Series:
        """The setting of each model with the best mean of the monitored metric.

        It is chosen among the settings with the most finished seeds, so that none wins
        because its worse runs failed.
        """
        ranks = self.estimate(self.monitor).assign(model=self.settings["model"])
        ranks = ranks[ranks["seeds"] > 0].sort_values(
            ["seeds", "mean"], ascending=[False, self.mode == "min"]
        )
        ranks = ranks.drop_duplicates("model").sort_index()
        return pd.Series(ranks.index, index=ranks["model"])

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """Differences of implicit (alpha > 0) minus explicit (alpha = 0) networks.

        A row has the names of both networks, the number of the implicit setting and the
        statistics of the difference over seeds. Both have the same seed, h and varied
        overrides, except for the network and the overrides of L, which an explicit network
        does not have. One explicit run is therefore compared with every alpha.

        A row without a setting is the mean over all settings of two networks. It counts
        `complete` settings, for which every seed has a difference. Differences of one seed
        are not independent, so they are averaged first and the interval counts seeds.
        """
        found = self._partners()
        scores = self.scores(self.metric)
        differences = scores[found["setting"]].to_numpy() - scores[found["partner"]]
        differences.columns = found.index
        found = found.assign(complete=1, settings=1).join(summarise(differences))
        rows = []
        for _, pairs in found.groupby(["implicit", "explicit"], sort=False):
            rows.append(pairs)
            if len(pairs) > 1:
                rows.append(_overall(pairs, differences[pairs.index]))
        return pd.concat(rows, ignore_index=True) if rows else found

    @property
    def higher_is_better(self) -> bool:
        """True if a larger `metric` is better.

        The accuracies delta1, ... always are, losses never are, others follow `mode`.
        """
        name = self.metric.rpartition("/")[-1]
        if name.startswith("delta"):
            return True
        return name != "loss" and self.mode == "max"

    def _partners(self) -> pd.DataFrame:
        """Return pairs of an implicit and an explicit setting that differ by L alone."""
        settings = self.settings.rename_axis("setting").reset_index()
        shared = [
            key
            for key in self.settings.columns.drop(["model", "alpha"])
            if not key.startswith(OPERATOR_OVERRIDES)
        ]
        also = settings.groupby("model")["alpha"].transform("max") > 0
        settings["explicit"] = settings["model"] + also.map(
            {True: ", alpha = 0", False: ""}
        )
        settings["implicit"] = settings["model"]
        settings["partner"] = settings["setting"]
        explicit = settings.loc[
            settings["alpha"] == 0, [*shared, "explicit", "partner"]
        ]
        implicit = settings.loc[settings["alpha"] > 0, [*shared, "implicit", "setting"]]
        found = implicit.merge(explicit, on=shared).drop(columns=shared)
        return found.astype({"setting": "Int64"})

    def _values(self, metric: str) -> pd.Series:
        """Return the finite values of a metric for all runs with a setting."""
        values = self.runs.get(metric, pd.Series(np.nan, self.runs.index))
        return values.where(np.isfinite(values))[self.setting.index]


def compare(runs: pd.DataFrame, metric: str | None = None) -> Comparison:
    """Return the comparison of a table of runs, by default in the monitored test score.

    Raises ConfigError for runs of different tasks and for an unknown metric, and
    CheckpointError if no run has finished.
    """
    runs = runs.loc[sorted(runs.index, key=natural)]
    finished = runs[runs["state"] == FINISHED]
    if finished.empty:
        states = ", ".join(
            f"{run}: {state}" for run, state in runs["state"][:3].items()
        )
        raise CheckpointError(f"none of {len(runs)} runs is finished ({states})")
    monitored = finished.groupby(["monitor", "mode"], sort=False)
    if len(monitored) > 1:
        kinds = "; ".join(
            f"{name} in {len(same)} (such as {same.index[0]})"
            for (name, _), same in monitored
        )
        raise ConfigError(
            f"the runs monitor different metrics, {kinds}; compare one task at a time"
        )
    monitor, mode = finished[["monitor", "mode"]].iloc[0]
    known = metric_columns(runs)
    test = monitor.replace("val/", "test/")
    chosen = metric or (test if test in known else monitor)
    if chosen not in known:
        raise ConfigError(f"metric={chosen}: unknown, {nearest(chosen, known)}")
    return Comparison(runs, *_settings(runs), monitor, mode, chosen)


def _settings(runs: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series]:
    """Return the settings of runs, and the number of the setting of each run."""
    known = runs[runs["seed"].notna()]
    integrators = known.groupby("model")["integrator"].transform("nunique")
    named = known["model"] + " (" + known["integrator"] + ")"
    chosen = pd.DataFrame({"model": known["model"].where(integrators == 1, named)})
    keys = [key for key in varied(runs) if key not in NETWORK_OVERRIDES]
    keys = ["data"] * (known["data"].nunique() > 1) + keys
    for key in keys:
        idle = key.startswith(OPERATOR_OVERRIDES) & (known["alpha"] == 0)
        chosen[key] = known[key].mask(idle, IDLE)
    chosen[["h", "alpha"]] = known[["h", "alpha"]]
    chosen = chosen[known["alpha"].notna() | (known["state"] != UNREADABLE)]
    orders = {key: sorted(chosen[key].unique(), key=natural) for key in keys}
    orders["model"] = [*chosen["model"].unique()]
    ranks = chosen.copy()
    for key, order in orders.items():
        ranks[key] = pd.Categorical(chosen[key], order, ordered=True)
    groups = ranks.groupby([*ranks], observed=True, dropna=False)
    setting = groups.ngroup().rename("setting")
    return chosen.groupby(setting).first(), setting


def _overall(pairs: pd.DataFrame, differences: pd.DataFrame) -> pd.DataFrame:
    """Return the row of the mean over several pairs of the same two networks."""
    complete = differences.dropna(how="all").dropna(axis="columns")
    row = summarise(complete.mean(axis="columns").to_frame())
    return row.assign(
        implicit=pairs["implicit"].iloc[0],
        explicit=pairs["explicit"].iloc[0],
        complete=len(complete.columns),
        settings=len(pairs),
    )
