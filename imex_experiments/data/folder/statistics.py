"""Mean, deviation and class counts of pixels, in one pass over the pictures."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass
class Moments:
    """Number, mean and sum of squared deviations of values, in float64.

    Two parts are merged exactly. Source: Chan, Golub and LeVeque (1983), eq. 1.1.
    """

    number: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, values: NDArray[np.number]) -> None:
        """Add values of any shape."""
        if not values.size:
            return
        part = values.astype(np.float64)
        mean = float(part.mean())
        self.merge(Moments(part.size, mean, float(np.square(part - mean).sum())))

    def merge(self, other: "Moments") -> None:
        """Add the values of other moments."""
        total = self.number + other.number
        if not total:
            return
        step = other.mean - self.mean
        self.squares += other.squares + step**2 * self.number * other.number / total
        self.mean += step * other.number / total
        self.number = total

    @property
    def std(self) -> float:
        """Return the standard deviation with the divisor n - 1; 0 for a single value."""
        return math.sqrt(self.squares / max(1, self.number - 1))
