"""Tell if two networks do the same operations on the same shapes."""

import io
import pickle
from collections.abc import Hashable
from typing import Any

from torch import Tensor, nn


def structure(network: nn.Module) -> Hashable:
    """Return a key of all that a network holds but its numbers.

    Networks of equal keys, as of two alphas, take the same way through their forward pass
    on the meta device: the same operations on the same shapes, or the same refusal. The
    key has classes, texts, integers, and the shapes of tensors. Floats enter by their rank
    among each other, 0 and 1: a forward pass is assumed to branch on comparisons of floats
    only. A network that pickle does not take has a key of its own.
    """
    content = io.BytesIO()
    walk = _Walk(content)
    try:
        walk.dump(network)
    except (pickle.PicklingError, TypeError, AttributeError, RuntimeError):
        return object()
    ranks = {x: rank for rank, x in enumerate(sorted({*walk.floats, 0.0, 1.0}))}
    return content.getvalue(), tuple(ranks[x] for x in walk.floats)


class _Walk(pickle.Pickler):
    """Write down what is reached from a network, and collect its floats."""

    def __init__(self, content: io.BytesIO) -> None:
        super().__init__(content)
        self.floats: list[float] = []

    def persistent_id(self, obj: Any) -> str | None:
        if isinstance(obj, float):
            self.floats.append(obj)
            return "float"
        if isinstance(obj, Tensor):
            return f"{type(obj)} {obj.shape} {obj.dtype} {obj.requires_grad}"
        return None

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(
            obj, nn.Module
        ):  # torch makes classes without a name, for weights
            kind = type(obj)  # that are functions of others
            return str, (f"{kind.__module__}.{kind.__qualname__}",), vars(obj)
        return NotImplemented
