"""When torch has to see every operation."""

import torch


def torch_derives() -> bool:
    """Whether a compiler or torch.func maps and derives operations: torch's own alone.

    Functions with a backward pass of their own, written in place or in kernels, give way
    to the same formula in plain operations.
    """
    compiling = torch.compiler.is_compiling()
    return compiling or torch._C._are_functorch_transforms_active()
