"""theta(t): which weights are in force at time t."""

from collections.abc import Callable, Sequence

from torch import nn


class StepwisePath(nn.ModuleList):
    """One module per step: theta(t) = theta_k on [t_k, t_{k+1}), the last one at t_N."""

    def __init__(self, make: Callable[[], nn.Module], points: Sequence[float]) -> None:
        super().__init__(make() for _ in points[:-1])
        self.points = tuple(points)

    def at(self, t: float) -> nn.Module:
        """The module in force at t; ValueError outside of [t_0, t_N]."""
        if not self.points[0] <= t <= self.points[-1]:
            raise ValueError(
                f"t must lie in [{self.points[0]}, {self.points[-1]}], got {t}"
            )
        begun = sum(
            point <= t for point in self.points
        )  # torch.compile knows no bisect
        return self[min(begun, len(self)) - 1]
