"""How large a network may become, before memory is given to it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from imex_experiments.errors import CheckpointError

SLACK = 4
"""Weights that a constructor may register more than it keeps, as when it replaces them."""


@contextmanager
def no_more_weights(state_dict: Mapping[str, Tensor]) -> Iterator[None]:
    """Let the body build a network without memory, of no more weights than a checkpoint's.

    CheckpointError as soon as it has many more: it could not be loaded into that network.
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
