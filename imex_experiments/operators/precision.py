"""Keep the constants and the arithmetic of the implicit solve at full precision."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache, wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

Made = TypeVar("Made")


def without_autocast(like: Tensor) -> AbstractContextManager[object]:
    """Return a context without autocast, which would turn products into bfloat16."""
    if like.is_meta:  # the meta device has no autocast
        return nullcontext()
    return torch.autocast(like.device.type, enabled=False)


def angles(j: Tensor, k: Tensor, period: int) -> Tensor:
    """Return the angles 2 pi j k / period in [0, 2 pi), (len(j), len(k)), float64.

    j k is reduced modulo the period in integers, so the angles are exact to rounding.
    """
    # A tensor: ONNX has no remainder by a number that depends on the image's size.
    n = torch.full((), period, dtype=torch.int64, device=j.device)
    return 2 * torch.pi * (torch.outer(j, k) % n).double() / n


def build_device(device: torch.device) -> torch.device:
    """Return the device on which to compute constants that `device` will use.

    It is the CPU, which has float64. In a compiled graph it is `device` itself, because a
    captured CUDA graph may not copy from the CPU.
    """
    return device if torch.compiler.is_compiling() else torch.device("cpu")


def constant(make: Callable[..., Made]) -> Callable[..., Made]:
    """Cache the last 64 results of a function that returns constant tensors.

    The tensors are created outside inference mode, so that training can use them too. The
    cache is skipped while a graph is traced, because the tracer's tensors are not valid
    outside of it.
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
