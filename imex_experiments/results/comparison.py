"""Statistics over seeds, and paired differences between implicit and explicit networks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Literal

from imex_experiments.errors import CheckpointError, ConfigError, nearest
from imex_experiments.results.jobs import Job, natural, varied
from imex_experiments.results.statistics import (
    OF_THE_OPERATOR,
    Estimate,
    Group,
    Setting,
)

OF_THE_NETWORK = ("model/integrator", "model.integrator._target_")
"""Overrides that choose the network, as `model` does; they are no settings of it."""


@dataclass(frozen=True)
class Pair:
    """Implicit minus explicit at one setting of the implicit network, or over `settings`.

    `setting` is None for the mean over settings; `complete` of `settings` went into it.
    """

    implicit: str
    explicit: str
    setting: Setting | None
    difference: Estimate | None
    complete: int = 1
    settings: int = 1


@dataclass(frozen=True)
class Comparison:
    """Jobs of one task, grouped. Settings are chosen by `monitor`, compared by `metric`."""

    jobs: tuple[Job, ...]
    monitor: str
    mode: Literal["min", "max"]
    metric: str

    @cached_property
    def groups(self) -> list[Group]:
        """One per setting, networks in the order of their first job."""
        integrators = _integrators(self.jobs)
        several_data = len({job.data for job in self.jobs if job.h is not None}) > 1
        keys = [key for key in varied(self.jobs) if key not in OF_THE_NETWORK]
        found: dict[Setting, list[Job]] = {}
        for job in self.jobs:
            if job.h is not None and job.alpha is not None:
                network = job.model
                if len(integrators[job.model]) > 1:
                    network += f" ({job.integrator})"
                others = _others(job, keys, several_data)
                setting = Setting(network, others, job.h, job.alpha)
                found.setdefault(setting, []).append(job)
        order = list(dict.fromkeys(setting.network for setting in found))

        def place(setting: Setting) -> tuple[object, ...]:
            others = [natural(value) for _, value in setting.others]
            network = order.index(setting.network)
            return network, others, setting.h, setting.alpha

        return [Group(s, tuple(found[s])) for s in sorted(found, key=place)]

    @cached_property
    def best(self) -> dict[str, Group]:
        """Per network the setting with the best mean of the monitored validation metric.

        Among those with the most finished seeds, so that a setting that loses half of its
        runs does not win by the other half.
        """
        best: dict[str, Group] = {}
        for group in self.groups:
            known = best.get(group.setting.network)
            if self._rank(group) > (self._rank(known) if known else (0, 0.0)):
                best[group.setting.network] = group
        return best

    @cached_property
    def pairs(self) -> list[Pair]:
        """Implicit (alpha > 0) minus explicit (alpha = 0) networks at equal settings.

        Seed, h and all varied overrides are equal but for the network and those of L,
        which an explicit network does not have: one explicit run is the partner of every
        alpha.
        """
        implicit = [g for g in self.groups if g.setting.alpha > 0]
        explicit = [g for g in self.groups if g.setting.alpha == 0]
        found: dict[tuple[str, str], list[tuple[Setting, dict[int, float]]]] = {}
        for ours in implicit:
            for theirs in explicit:
                if ours.setting.without_operator() == theirs.setting.without_operator():
                    names = (ours.setting.network, self.explicit_name(theirs.setting))
                    found.setdefault(names, []).append(
                        (ours.setting, self._differences(ours, theirs))
                    )
        return [pair for names, pairs in found.items() for pair in _rows(names, pairs)]

    def explicit_name(self, setting: Setting) -> str:
        """The network, with its alpha if it is one that also has others."""
        alphas = {
            g.setting.alpha for g in self.groups if g.setting.network == setting.network
        }
        return setting.network if alphas == {0.0} else f"{setting.network}, alpha = 0"

    def higher_is_better(self) -> bool:
        """Whether more of `metric` is good; losses and errors follow the task's mode."""
        name = self.metric.rpartition("/")[-1]
        if name.startswith("delta"):
            return True
        return name != "loss" and self.mode == "max"

    def _rank(self, group: Group) -> tuple[int, float]:
        estimate = group.estimate(self.monitor)
        if estimate is None:
            return 0, 0.0
        return estimate.n, estimate.mean if self.mode == "max" else -estimate.mean

    def _differences(self, ours: Group, theirs: Group) -> dict[int, float]:
        mine, other = ours.by_seed(self.metric), theirs.by_seed(self.metric)
        return {seed: mine[seed] - other[seed] for seed in mine if seed in other}


def compare(jobs: Iterable[Job], metric: str | None = None) -> Comparison:
    """The comparison of jobs in any order, by default in the test score that is monitored.

    ConfigError for jobs of different tasks or an unknown metric, CheckpointError if none
    of them finished.
    """
    ordered = tuple(sorted(jobs, key=lambda job: natural(job.run)))
    finished = [job for job in ordered if job.finished]
    if not finished:
        states = ", ".join(f"{job.run}: {job.state}" for job in ordered[:3])
        raise CheckpointError(f"none of {len(ordered)} runs is finished ({states})")
    monitored: dict[tuple[str, str], list[str]] = {}
    for job in finished:
        monitored.setdefault((job.monitor, job.mode), []).append(job.run)
    if len(monitored) > 1:
        kinds = "; ".join(
            f"{name} in {len(runs)} (such as {runs[0]})"
            for (name, _), runs in monitored.items()
        )
        raise ConfigError(
            f"the runs monitor different metrics, {kinds}; compare one task at a time"
        )
    ((monitor, mode),) = monitored
    known = {name for job in finished for name in job.metrics}
    test = monitor.replace("val/", "test/")
    chosen = metric or (test if test in known else monitor)
    if chosen not in known:
        raise ConfigError(f"metric={chosen}: unknown, {nearest(chosen, known)}")
    return Comparison(ordered, monitor, "min" if mode == "min" else "max", chosen)


def _integrators(jobs: Sequence[Job]) -> dict[str, set[str]]:
    """The integrators with which each model was run: `model` alone may not tell."""
    integrators: dict[str, set[str]] = {}
    for job in jobs:
        if job.h is not None:
            integrators.setdefault(job.model, set()).add(job.integrator)
    return integrators


def _others(job: Job, keys: Sequence[str], data: bool) -> tuple[tuple[str, str], ...]:
    idle = OF_THE_OPERATOR if job.alpha == 0 else ()
    chosen = [("data", job.data)] if data else []
    chosen += [
        (k, job.overrides.get(k, "")) for k in keys if not (idle and k.startswith(idle))
    ]
    return tuple(chosen)


def _rows(
    names: tuple[str, str], pairs: Sequence[tuple[Setting, dict[int, float]]]
) -> list[Pair]:
    """One row per setting, and one for all settings that every seed has.

    Differences of one seed at several settings are not independent: they are averaged
    first, so that the interval counts seeds.
    """
    rows = [
        Pair(*names, setting, Estimate.of(by_seed.values()) if by_seed else None)
        for setting, by_seed in pairs
    ]
    if len(pairs) > 1:
        seeds = {seed for _, by_seed in pairs for seed in by_seed}
        complete = [by_seed for _, by_seed in pairs if by_seed.keys() == seeds]
        overall = None
        if complete and seeds:
            means = [fmean(by_seed[seed] for by_seed in complete) for seed in seeds]
            overall = Estimate.of(means)
        rows.append(Pair(*names, None, overall, len(complete), len(pairs)))
    return rows
