"""Parameter groups for the optimizer, and a learning-rate schedule in epochs."""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import MultiStepLR

IS_NORM = re.compile(r"Norm(\dd)?$")
"""Pattern of the class names of norms: BatchNorm2d, GroupNorm, TvNorm, LayerNorm, ..."""


def undecayed_norms(network: nn.Module) -> list[dict[str, Any]]:
    """Return two parameter groups: parameters of norms, without weight decay, come last."""
    norms = {
        parameter: None
        for module in network.modules()
        if IS_NORM.search(type(module).__name__)
        for parameter in module.parameters()
    }
    others = [parameter for parameter in network.parameters() if parameter not in norms]
    return [{"params": others}, {"params": list(norms), "weight_decay": 0.0}]


class MultiStep(MultiStepLR):
    """Multiply the learning rate by `gamma` at the start of each epoch in `milestones`.

    Epochs count from 0. The scheduler steps `total_steps` times in `epochs` epochs. Raises
    ValueError for epochs < 1 and for milestones that are not positive and increasing.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        epochs: int,
        milestones: Sequence[int],
        gamma: float = 0.1,
    ) -> None:
        if epochs < 1:
            raise ValueError(f"epochs must be >= 1, got {epochs}")
        if any(first >= second for first, second in pairwise([0, *milestones])):
            raise ValueError(
                f"milestones must be positive and increasing, got {list(milestones)}"
            )
        steps = [round(milestone * total_steps / epochs) for milestone in milestones]
        super().__init__(optimizer, steps, gamma)
