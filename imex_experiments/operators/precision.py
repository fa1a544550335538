"""What keeps constants and arithmetic of the implicit solve at full precision."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache, wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

Made = TypeVar("Made")


def without_autocast(like: Tensor) -> AbstractContextManager[object]:
    """A context in which products keep their dtype: autocast would make them bfloat16."""
    if like.is_meta:  # it has no autocast
        return nullcontext()
    return torch.autocast(like.device.type, enabled=False)


def angles(j: Tensor, k: Tensor, period: int) -> Tensor:
    """Return the angles 2 pi j k / period, (len(j), len(k)), float64.

    Whole turns are taken off in integers, so that angles are exact to rounding.
    """
    # A tensor: ONNX has no remainder by a number that depends on the image's size.
    n = torch.full((), period, dtype=torch.int64, device=j.device)
    return 2 * torch.pi * (torch.outer(j, k) % n).double() / n


def made_on(device: torch.device) -> torch.device:
    """Return where constants of a device are made: the CPU, and always in float64.

    A compiled graph makes them itself, and one that is replayed copies nothing from the
    CPU: there they are made on the device.
    """
    return device if torch.compiler.is_compiling() else torch.device("cpu")


def constant(make: Callable[..., Made]) -> Callable[..., Made]:
    """Keep the last results of a function that makes constant tensors.

    They are made outside of inference mode, because training may use them as well, and
    anew while a graph is traced, because the tracer's tensors mean nothing outside.
    """

    @lru_cache(maxsize=64)
    def kept(*args: Any) -> Made:
        with torch.inference_mode(False):
            return make(*args)

    @wraps(make)
    def call(*args: Any) -> Made:
        if torch.compiler.is_compiling():
            return make(*args)
        return kept(*args)

    return call
