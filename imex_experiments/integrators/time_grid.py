"""The time points of a block."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class TimeGrid:
    """t_0 < t_1 < ... < t_N; ValueError for points that are not finite and increasing."""

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
        """t_k = k h for k = 0 ... steps; ValueError unless h > 0 is finite and steps >= 1."""
        if not (h > 0 and math.isfinite(h)):
            raise ValueError(f"h must be > 0 and finite, got {h}")
        if steps < 1:
            raise ValueError(f"steps must be >= 1, got {steps}")
        return cls(tuple(k * h for k in range(steps + 1)))

    def steps(self) -> Iterator[tuple[float, float]]:
        """(t_0, t_1), (t_1, t_2), ..."""
        return pairwise(self.points)
