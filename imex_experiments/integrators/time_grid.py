"""Time grids: the points between which a block takes its steps."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise


@dataclass(frozen=True)
class TimeGrid:
    """A grid of time points t_0 < t_1 < ... < t_N.

    Raises ValueError for points that are not finite and increasing.
    """

    points: tuple[float, ...]

    def __post_init__(self) -> None:
        increasing = all(t0 < t1 for t0, t1 in pairwise(self.points))
        if (
            len(self.points) < 2
            or not increasing
            or not all(map(math.isfinite, self.points))
        ):
            raise ValueError(
                f"time points must be finite and increasing, got {self.points}"
            )

    @classmethod
    def uniform(cls, h: float, steps: int) -> "TimeGrid":
        """Return the grid t_k = k h for k = 0 ... steps.

        Raises ValueError unless h > 0 is finite and steps >= 1.
        """
        _check(h, steps)
        return cls(tuple(float(k * h) for k in range(steps + 1)))

    @classmethod
    def geometric(cls, h: float, steps: int, ratio: float) -> "TimeGrid":
        """Return a grid from 0 to steps x h, each step `ratio` times the one before.

        Raises ValueError unless h > 0 and ratio > 0 are finite and steps >= 1.
        """
        _check(h, steps)
        if not (ratio > 0 and math.isfinite(ratio)):
            raise ValueError(f"ratio must be > 0 and finite, got {ratio}")
        if ratio == 1:
            return cls.uniform(h, steps)
        lengths = [ratio**k for k in range(steps)]
        first = steps * h / math.fsum(lengths)
        return cls((0.0, *(first * length for length in accumulate(lengths))))

    def refined(self, factor: int) -> "TimeGrid":
        """Return a grid with every step cut into `factor` equal steps.

        It contains all points of this grid. Raises ValueError for factor < 1.
        """
        if factor < 1:
            raise ValueError(f"factor must be >= 1, got {factor}")
        inner = [
            t0 + (t1 - t0) * k / factor
            for t0, t1 in self.steps()
            for k in range(factor)
        ]
        return TimeGrid((*inner, self.points[-1]))

    def steps(self) -> Iterator[tuple[float, float]]:
        """Iterate over the steps (t_0, t_1), (t_1, t_2), ..."""
        return pairwise(self.points)


def _check(h: float, steps: int) -> None:
    if not (h > 0 and math.isfinite(h)):
        raise ValueError(f"h must be > 0 and finite, got {h}")
    if steps < 1:
        raise ValueError(f"steps must be >= 1, got {steps}")
