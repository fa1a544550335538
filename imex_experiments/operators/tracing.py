"""Tell if torch.compile or torch.func transforms the operations."""

import torch


def is_transformed() -> bool:
    """Return True while torch.compile or torch.func transforms the operations.

    Neither of them can look into an autograd.Function, an in-place update or a kernel of
    this package. The callers then compute the same formula from torch's own operations.
    """
    compiling = torch.compiler.is_compiling()
    return compiling or torch._C._are_functorch_transforms_active()
