"""The U-Net, a baseline: it enlarges the receptive field by coarsening the image.

Shapes: images and features (B, C, H, W).
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imex_experiments.networks.any_size import AnySize
from imex_experiments.networks.connectors import Connector, Head
from imex_experiments.terms.diffusion import Alpha
from imex_experiments.terms.positive import FIRST_H


class UNet(AnySize):
    """An encoder and a decoder with skip connections (Ronneberger et al. 2015).

    Shapes: (B, in_channels, H, W) to (B, out_channels, H, W). `widths` has one entry per
    level. h and alpha have no effect; they exist so that a sweep can set them for every
    model. `multiple` is 2^(levels - 1). Raises ValueError for fewer than two widths.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        widths: Sequence[int],
        h: float | Literal["learned"] = 1.0,
        alpha: Alpha = 0.0,
        padding: str = "zeros",
        norm: str = "batch",
        activation: str = "relu",
    ) -> None:
        super().__init__(2 ** (len(widths) - 1))
        self.h, self.alpha = FIRST_H if isinstance(h, str) else float(h), 0.0
        if len(widths) < 2 or min(widths) < 1:
            raise ValueError(
                f"widths must be two or more positive integers, got {list(widths)}"
            )

        def double(narrow: int, wide: int) -> nn.Module:
            return nn.Sequential(
                Connector(narrow, wide, 3, padding, norm, activation),
                Connector(wide, wide, 3, padding, norm, activation),
            )

        self.encoders = nn.ModuleList(
            double(narrow, wide)
            for narrow, wide in zip([in_channels, *widths], widths, strict=False)
        )
        rising = list(pairwise(reversed(widths)))
        self.reductions = nn.ModuleList(
            Connector(deep, shallow, 1, padding, norm, activation)
            for deep, shallow in rising
        )
        self.decoders = nn.ModuleList(
            double(2 * shallow, shallow) for _, shallow in rising
        )
        self.head = Head(widths[0], out_channels)

    def outputs(self, y: Tensor) -> Tensor:
        *skipped, y = self._encode(y)
        for skip, reduce, decode in zip(
            reversed(skipped), self.reductions, self.decoders, strict=True
        ):
            y = decode(
                torch.cat([skip, reduce(F.interpolate(y, scale_factor=2.0))], dim=1)
            )
        return self.head(y)

    def _encode(self, y: Tensor) -> list[Tensor]:
        """Return the features of every level, finest first."""
        levels = [self.encoders[0](y)]
        for encoder in list(self.encoders)[1:]:
            levels.append(encoder(F.max_pool2d(levels[-1], 2)))
        return levels
