"""Weight paths theta(t): the weights of f or L as a function of time.

A path has modules at knots tau_0 < tau_1 < ... < tau_M, and is constant or linear between.
"""

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
"""A module at one time, with its weights: (B, C, H, W) to the same."""


class WeightPath(nn.ModuleList):
    """A list of like modules at knots tau_0 < tau_1 < ... < tau_M.

    Raises ValueError for knots that are not finite and increasing.
    """

    def __init__(self, modules: Iterable[nn.Module], knots: Sequence[float]) -> None:
        super().__init__(modules)
        self.knots = tuple(knots)
        increasing = all(t0 < t1 for t0, t1 in pairwise(self.knots))
        if len(self.knots) < 2 or not increasing or not _finite(self.knots):
            raise ValueError(f"knots must be finite and increasing, got {self.knots}")

    def at(self, t: float, end: float = math.inf) -> Term:
        """Return the module with the weights theta(t), for a step that ends at `end`.

        At t = end a path that jumps takes the value before the jump: the jump belongs to
        the next step. Raises ValueError for t outside [tau_0, tau_M].
        """
        raise NotImplementedError

    def interval(self, t: float, end: float = math.inf) -> int:
        """Return k with tau_k <= t < tau_{k+1}, or tau_k < t <= tau_{k+1} for t = end."""
        first, last = self.knots[0], self.knots[-1]
        if not covers(self.knots, (t, t)):
            raise ValueError(f"t must lie in [{first}, {last}], got {t}")
        # A sum, because torch.compile does not support bisect.
        before = sum(knot < t if t >= end else knot <= t for knot in self.knots)
        return min(max(before - 1, 0), len(self.knots) - 2)

    def roughness(self) -> Tensor:
        """Return sum_k (tau_{k+1} - tau_k) |theta_{k+1} - theta_k|^2 over all weights.

        Source: DynamicBlocks, "regularization in time". The published code uses the
        spacing of the states in place of that of the knots.
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
    """A piecewise constant path, theta(t) = theta_k on [tau_k, tau_{k+1})."""

    def __init__(self, make: Callable[[], nn.Module], knots: Sequence[float]) -> None:
        super().__init__((make() for _ in knots[:-1]), knots)

    def at(self, t: float, end: float = math.inf) -> nn.Module:
        return self[self.interval(t, end)]

    def refined(self, knots: Sequence[float]) -> "StepwisePath":
        """Return this path on other knots, with copies of its modules."""
        modules = iter([copy.deepcopy(self.at(t)) for t in knots[:-1]])
        return StepwisePath(lambda: next(modules), knots)


class LinearPath(WeightPath):
    """A piecewise linear path, theta(t) = (1-s) theta_k + s theta_{k+1} on [tau_k, tau_{k+1}].

    There is one module per knot. Between two knots the left module is called with
    interpolated weights, so that gradients reach both knots. Raises ValueError for batch
    norm. Source: DynamicBlocks, sec. "Summary".
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
        """Return the knot k left of t and theta(t); None in place of theta_k itself."""
        k = self.interval(t, end)
        t0, t1 = self.knots[k : k + 2]
        s = (t - t0) / (t1 - t0)
        if s <= 0 or s >= 1:
            return k + (s >= 1), None
        right = dict(self[k + 1].named_parameters())
        left = self[k].named_parameters()
        return k, {name: torch.lerp(p, right[name], s) for name, p in left}

    def refined(self, knots: Sequence[float]) -> "LinearPath":
        """Return the path through theta(t) at other knots.

        It is the same function of time if the new knots include the old ones.
        """
        modules = iter([self._copy_at(t) for t in knots])
        return LinearPath(lambda: next(modules), knots)

    def _copy_at(self, t: float) -> nn.Module:
        """Return a new module with the weights theta(t)."""
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
    """Return True if all points, which increase, lie between the knots, up to rounding."""
    slack = 1e-9 * (abs(knots[0]) + abs(knots[-1]))
    return knots[0] - slack <= points[0] and points[-1] <= knots[-1] + slack


def refuse_batch_norm(module: nn.Module, reason: str) -> None:
    """Raise ValueError if a module has a batch norm; `reason` says why it must not."""
    if any(
        isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules()
    ):
        raise ValueError(
            f"norm=batch: {reason}, and batch statistics belong to one module at one "
            "step; use norm=tv, group or instance"
        )


def _finite(values: Iterable[float]) -> bool:
    return all(map(math.isfinite, values))
