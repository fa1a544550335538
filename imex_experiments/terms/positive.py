"""Positive scalars that change during training: step sizes h and strengths alpha of L."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FIRST_H, FIRST_ALPHA = 1.0, 100.0
"""Initial values of a learned h and of a learned or automatic alpha."""


class Positive(nn.Module):
    """A trained positive tensor, start x softplus(a) / log 2, equal to `start` at first.

    The parameter a is unconstrained and starts at 0. The gradient in a is proportional to
    `start`, so that one learning rate suits an alpha of 100 and an h of 1.
    Shapes: a and the result have the given shape.
    """

    def __init__(self, start: float, *shape: int) -> None:
        super().__init__()
        self.start = start
        self.a = nn.Parameter(torch.zeros(shape))

    def forward(self) -> Tensor:
        return self.start / math.log(2) * F.softplus(self.a)


class Chosen(nn.Module):
    """A number that is set, not trained; a buffer, so that checkpoints contain it."""

    value: Tensor

    def __init__(self, start: float) -> None:
        super().__init__()
        self.register_buffer("value", torch.tensor(start))

    def forward(self) -> Tensor:
        return self.value
