"""Positive numbers that training varies."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FIRST_H, FIRST_ALPHA = 1.0, 100.0
"""Where an h that is learned starts, and an alpha that is learned or chosen."""


class Positive(nn.Module):
    """start x softplus(a) / log 2 > 0; a is trained and 0 at first.

    Shapes: a and the result have the given shape. A step of a changes the number by a
    share of `start`, so that one learning rate serves an alpha of 100 and an h of 1.
    """

    def __init__(self, start: float, *shape: int) -> None:
        super().__init__()
        self.start = start
        self.a = nn.Parameter(torch.zeros(shape))

    def forward(self) -> Tensor:
        return self.start / math.log(2) * F.softplus(self.a)


class Chosen(nn.Module):
    """A number that is not trained but set: `value`, saved with the weights."""

    value: Tensor

    def __init__(self, start: float) -> None:
        super().__init__()
        self.register_buffer("value", torch.tensor(start))

    def forward(self) -> Tensor:
        return self.value
