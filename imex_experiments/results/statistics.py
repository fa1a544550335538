"""Compute mean, standard deviation and confidence interval over seeds."""

import numpy as np
import pandas as pd
from scipy.stats import t

LEVEL = 0.95
"""Confidence level of the intervals."""


def summarise(scores: pd.DataFrame) -> pd.DataFrame:
    """Return mean, sd, seeds, low and high of every column of scores, a row per seed.

    `sd` is the sample standard deviation, `seeds` the number of values. low and high are
    mean -+ t_(n-1) sd / sqrt(n), Student's interval with 95 % confidence. A single value
    has NaN for sd, low and high.
    """
    mean, sd, seeds = scores.mean(), scores.std(), scores.count()
    half = t.ppf((1 + LEVEL) / 2, seeds - 1) * sd / np.sqrt(seeds)
    ends = {"low": mean - half, "high": mean + half}
    return pd.DataFrame({"mean": mean, "sd": sd, "seeds": seeds, **ends})
