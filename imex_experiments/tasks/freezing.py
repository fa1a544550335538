"""Freeze weights: they get no gradient and no decay, and their norms keep their statistics.

A norm whose weights are all frozen stays in evaluation mode. It normalises by the running
statistics that it has, and does not update them: frozen layers stay the same function.
"""

import difflib
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from torch import nn


def freeze(network: nn.Module, patterns: Sequence[str]) -> None:
    """Freeze the weights of a network whose name matches one of the patterns (fnmatch).

    Raises ValueError with the nearest names for a pattern that matches no weight, and if no
    weight is left to train.
    """
    weights = dict(network.named_parameters())
    for pattern in patterns:
        matching = [name for name in weights if fnmatchcase(name, pattern)]
        if not matching:
            close = difflib.get_close_matches(pattern, weights, n=3, cutoff=0.0)
            raise ValueError(
                f"{pattern!r} matches no weight of the network; near: {', '.join(close)}"
            )
        for name in matching:
            weights[name].requires_grad_(False)
    if weights and not any(weight.requires_grad for weight in weights.values()):
        raise ValueError(f"{list(patterns)} leaves no weight to train")


def frozen_norms(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the norms with running statistics whose weights are all frozen."""
    for part in module.modules():
        trained = [weight.requires_grad for weight in part.parameters(recurse=False)]
        if hasattr(part, "running_mean") and trained and not any(trained):
            yield part
