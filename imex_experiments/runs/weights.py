"""Bound the size of a network while it is built."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from imex_experiments.errors import CheckpointError

SLACK = 4
"""Factor for weights that a constructor registers and then replaces."""


@contextmanager
def no_more_weights(state_dict: Mapping[str, Tensor]) -> Iterator[None]:
    """Build networks in the body on the meta device, with a limit for their weights.

    Raises CheckpointError as soon as there are many more than in a checkpoint, which could
    not be loaded into such a network.
    """
    most_tensors = SLACK * len(state_dict)
    most_weights = SLACK * sum(tensor.numel() for tensor in state_dict.values())
    tensors = weights = 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal tensors, weights
        if parameter is not None:
            tensors, weights = tensors + 1, weights + parameter.numel()
        if tensors > most_tensors or weights > most_weights:
            raise CheckpointError(
                "the configuration is of a larger network than the checkpoint"
            )

    hook = register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"):
            yield
    finally:
        hook.remove()
