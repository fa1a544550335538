"""Which kernels can be run, on which images."""

import importlib.util
import os
from collections.abc import Sequence

import torch
from torch import Tensor

from imex_experiments.operators.kernels import cpp

TRITON_DTYPES = (torch.float32, torch.bfloat16, torch.float16)

TRITON = importlib.util.find_spec("triton") is not None
"""Whether there is a compiler for the kernels of `kernels.triton`."""

SHARED_MEMORY = 160 * 2**10
"""Bytes that a program of `kernels.triton` takes at most, of float32 planes of 64 x 64 or
half-precision ones of 128 x 128."""


def in_one_pass(size: Sequence[int], dtype: torch.dtype) -> bool:
    """Tell if a program of `kernels.triton` holds a plane (H, W) as a whole."""
    sides = {*size}
    return sides <= {32, 64} or (sides <= {64, 128} and dtype.itemsize == 2)


def kernels_for(x: Tensor) -> str | None:
    """The kernels of `fused` that can be run on images like x."""
    if needs_plain_operations(x):
        return None
    if TRITON and x.dtype in TRITON_DTYPES and _has_room(x.device):
        return "triton"
    if x.is_cpu and built():
        return "cpp"
    return None


def needs_plain_operations(x: Tensor) -> bool:
    """Tell if somebody else computes with images like x: no kernel of ours can be run.

    torch.func maps and derives torch's operations alone, an exported graph runs without
    this package, and on the meta device nothing is computed.
    """
    mapped = torch._C._are_functorch_transforms_active()
    return mapped or torch.compiler.is_exporting() or x.is_meta


@torch.compiler.assume_constant_result
def _has_room(device: torch.device) -> bool:
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        # Devices of other makers do not tell.
        return getattr(properties, "shared_memory_per_block_optin", 0) >= SHARED_MEMORY
    return device.type == "cpu" and emulated()


def emulated() -> bool:
    """Whether Triton interprets its kernels on a CPU."""
    return TRITON and os.environ.get("TRITON_INTERPRET") == "1"


@torch.compiler.assume_constant_result
def built() -> bool:
    """Whether the kernels for CPUs are there, or could be built."""
    return cpp.library() is not None
