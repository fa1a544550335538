"""The jobs of one setting, and their statistics over seeds."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite, sqrt
from statistics import fmean, stdev

from scipy.stats import t

from imex_experiments.results.jobs import Job

LEVEL = 0.95
"""Of all confidence intervals."""

OF_THE_OPERATOR = ("model/diffusion", "model.diffusion.")
"""Beginnings of overrides of L, without effect where alpha = 0."""


@dataclass(frozen=True)
class Setting:
    """What a number is repeated over seeds for. `others` are (override, value) pairs."""

    network: str
    others: tuple[tuple[str, str], ...]
    h: float
    alpha: float

    def without_operator(self) -> object:
        """What an implicit and an explicit setting must share to be a pair."""
        kept = [pair for pair in self.others if not pair[0].startswith(OF_THE_OPERATOR)]
        return kept, self.h


@dataclass(frozen=True)
class Estimate:
    """Mean, sample standard deviation and number of independent values.

    `sd` and the Student-t confidence interval are None for a single value.
    """

    mean: float
    sd: float | None
    n: int

    @staticmethod
    def of(values: Iterable[float]) -> "Estimate":
        values = list(values)
        return Estimate(
            fmean(values), stdev(values) if len(values) > 1 else None, len(values)
        )

    @property
    def interval(self) -> tuple[float, float] | None:
        """mean -+ t_(n-1) sd / sqrt(n), with 95 % confidence."""
        if self.sd is None:
            return None
        half = float(t.ppf((1 + LEVEL) / 2, self.n - 1)) * self.sd / sqrt(self.n)
        return self.mean - half, self.mean + half


@dataclass(frozen=True)
class Group:
    """All jobs of one setting."""

    setting: Setting
    jobs: tuple[Job, ...]

    def by_seed(self, metric: str) -> dict[int, float]:
        """One finite value per seed; repeats of a seed are averaged, they are no sample."""
        values: dict[int, list[float]] = {}
        for job in self.jobs:
            value = job.metrics.get(metric)
            if job.seed is not None and value is not None and isfinite(value):
                values.setdefault(job.seed, []).append(value)
        return {seed: fmean(repeats) for seed, repeats in sorted(values.items())}

    def estimate(self, metric: str) -> Estimate | None:
        """Over the seeds; None if no job has the metric."""
        values = self.by_seed(metric)
        return Estimate.of(values.values()) if values else None

    def lost(self, metric: str) -> int:
        """How many jobs have no finite value: failed, interrupted, diverged, unreadable."""
        values = [job.metrics.get(metric) for job in self.jobs]
        return sum(value is None or not isfinite(value) for value in values)
