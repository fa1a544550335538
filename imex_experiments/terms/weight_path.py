"""theta(t): which weights are in force at time t."""

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

Term = Callable[[Tensor], Tensor]
"""A right-hand side with its weights: (B, C, H, W) to the same."""


class WeightPath(nn.ModuleList):
    """Modules of one kind along control knots tau_0 < tau_1 < ... < tau_M.

    ValueError for knots that are not finite and increasing.
    """

    def __init__(self, modules: Iterable[nn.Module], knots: Sequence[float]) -> None:
        super().__init__(modules)
        self.knots = tuple(knots)
        increasing = all(t0 < t1 for t0, t1 in pairwise(self.knots))
        if len(self.knots) < 2 or not increasing or not _finite(self.knots):
            raise ValueError(f"knots must be finite and increasing, got {self.knots}")

    def at(self, t: float, end: float = math.inf) -> Term:
        """What is in force at t, in a step that ends at `end` and sees no jump there.

        ValueError outside of [tau_0, tau_M].
        """
        raise NotImplementedError

    def interval(self, t: float, end: float = math.inf) -> int:
        """k with tau_k <= t < tau_{k+1}; at the end of a step tau_k < t <= tau_{k+1}."""
        first, last = self.knots[0], self.knots[-1]
        if not covers(self.knots, (t, t)):
            raise ValueError(f"t must lie in [{first}, {last}], got {t}")
        # Counted by hand: torch.compile knows no bisect.
        before = sum(knot < t if t >= end else knot <= t for knot in self.knots)
        return min(max(before - 1, 0), len(self.knots) - 2)

    def roughness(self) -> Tensor:
        """sum_k (tau_{k+1} - tau_k) |theta_{k+1} - theta_k|^2, over all weights.

        Source: DynamicBlocks, "regularization in time", with the knots' own spacing (the
        published code takes that of the states).
        """
        terms = [
            (t1 - t0) * (q - p).square().sum()
            for (t0, t1), (left, right) in zip(
                pairwise(self.knots), pairwise(self), strict=False
            )
            for p, q in zip(left.parameters(), right.parameters(), strict=True)
        ]
        return torch.stack(terms).sum() if terms else torch.zeros(())


class StepwisePath(WeightPath):
    """Piecewise constant: theta(t) = theta_k on [tau_k, tau_{k+1}), one module for each."""

    def __init__(self, make: Callable[[], nn.Module], knots: Sequence[float]) -> None:
        super().__init__((make() for _ in knots[:-1]), knots)

    def at(self, t: float, end: float = math.inf) -> nn.Module:
        return self[self.interval(t, end)]

    def refined(self, knots: Sequence[float]) -> "StepwisePath":
        """The same path on other knots: each module is a copy of the one in force there."""
        modules = iter([copy.deepcopy(self.at(t)) for t in knots[:-1]])
        return StepwisePath(lambda: next(modules), knots)


class LinearPath(WeightPath):
    """Piecewise linear: theta(t) = (1-s) theta_k + s theta_{k+1} on [tau_k, tau_{k+1}].

    One module per knot; in between the module of the left knot is called with
    interpolated weights, so nothing is copied and gradients reach both knots.
    ValueError for batch norm. Source: DynamicBlocks, sec. "Summary".
    """

    def __init__(self, make: Callable[[], nn.Module], knots: Sequence[float]) -> None:
        super().__init__((make() for _ in knots), knots)
        for module in self:
            refuse_batch_norm(module, "between two knots the weights are interpolated")

    def at(self, t: float, end: float = math.inf) -> Term:
        k, weights = self._weights(t, end)
        if weights is None:
            return cast(Term, self[k])
        return partial(functional_call, self[k], weights)

    def _weights(
        self, t: float, end: float = math.inf
    ) -> tuple[int, dict[str, Tensor] | None]:
        """The nearest knot to the left and the weights at t, None for the knot's own."""
        k = self.interval(t, end)
        t0, t1 = self.knots[k : k + 2]
        s = (t - t0) / (t1 - t0)
        if s <= 0 or s >= 1:
            return k + (s >= 1), None
        right = dict(self[k + 1].named_parameters())
        left = self[k].named_parameters()
        return k, {name: torch.lerp(p, right[name], s) for name, p in left}

    def refined(self, knots: Sequence[float]) -> "LinearPath":
        """The path on other knots; the same function where they include the old ones."""
        modules = iter([self._copy_at(t) for t in knots])
        return LinearPath(lambda: next(modules), knots)

    def _copy_at(self, t: float) -> nn.Module:
        k, weights = self._weights(t)
        module = copy.deepcopy(self[k])
        if weights is not None:
            module.load_state_dict(
                {name: weight.detach() for name, weight in weights.items()},
                strict=False,
            )
        return module


PATHS: dict[str, type[StepwisePath] | type[LinearPath]] = {
    "constant": StepwisePath,
    "linear": LinearPath,
}


def covers(knots: Sequence[float], points: Sequence[float]) -> bool:
    """Whether every point lies between the knots, up to rounding."""
    slack = 1e-9 * (abs(knots[0]) + abs(knots[-1]))
    return knots[0] - slack <= points[0] and points[-1] <= knots[-1] + slack


def refuse_batch_norm(module: nn.Module, reason: str) -> None:
    """ValueError for a module with batch statistics where they have no meaning."""
    if any(
        isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules()
    ):
        raise ValueError(
            f"norm=batch: {reason}, and batch statistics belong to one module at one "
            "step; use norm=tv, group or instance"
        )


def _finite(values: Iterable[float]) -> bool:
    return all(map(math.isfinite, values))
