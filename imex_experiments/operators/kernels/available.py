"""Tell which kernels can run on which images."""

import importlib.util
import os
from collections.abc import Sequence

import torch
from torch import Tensor

from imex_experiments.operators.kernels import cpp

TRITON_DTYPES = (torch.float32, torch.bfloat16, torch.float16)

TRITON = importlib.util.find_spec("triton") is not None
"""True if Triton, the compiler of `kernels.triton`, is installed."""

SHARED_MEMORY = 160 * 2**10
"""Bytes of shared memory that a program of `kernels.triton` needs at most: for float32
planes of 64 x 64 and half-precision planes of 128 x 128."""


def in_one_pass(size: Sequence[int], dtype: torch.dtype) -> bool:
    """Return True if a program of `kernels.triton` can hold a whole plane (H, W)."""
    sides = {*size}
    return sides <= {32, 64} or (sides <= {64, 128} and dtype.itemsize == 2)


def kernels_for(x: Tensor) -> str | None:
    """Return the kernels that can run on images like x: "triton", "cpp" or None."""
    if forbids_kernels(x):
        return None
    if TRITON and x.dtype in TRITON_DTYPES and _has_room(x.device):
        return "triton"
    if x.is_cpu and built():
        return "cpp"
    return None


def forbids_kernels(x: Tensor) -> bool:
    """Return True where the kernels of this package cannot run at all.

    torch.func transforms only torch's own operations. An exported graph runs without this
    package. The meta device computes nothing.
    """
    mapped = torch._C._are_functorch_transforms_active()
    return mapped or torch.compiler.is_exporting() or x.is_meta


@torch.compiler.assume_constant_result
def _has_room(device: torch.device) -> bool:
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        # Not every backend reports this property; without it Triton is not used.
        return getattr(properties, "shared_memory_per_block_optin", 0) >= SHARED_MEMORY
    return device.type == "cpu" and emulated()


def emulated() -> bool:
    """Return True if Triton interprets its kernels on a CPU (TRITON_INTERPRET=1)."""
    return TRITON and os.environ.get("TRITON_INTERPRET") == "1"


@torch.compiler.assume_constant_result
def built() -> bool:
    """Return True if the C++ kernels are compiled already or can be compiled now."""
    return cpp.library() is not None
