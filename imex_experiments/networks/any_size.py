"""Let a network that coarsens take images of any size."""

import torch
from torch import Tensor, nn


class AnySize(nn.Module):
    """A network for images whose sides are multiples of `multiple`, made to take any.

    An image is continued, below and to the right, to such sides: by its reflection, and
    where that ends by its first row or column. The output is cropped to the size of the
    image. A subclass has `outputs` in place of `forward`.
    Shapes: images (B, in_channels, H, W) to (B, out_channels, H, W).
    """

    def __init__(self, multiple: int) -> None:
        super().__init__()
        self.multiple = multiple

    def forward(self, y: Tensor) -> Tensor:
        height, width = y.shape[-2:]
        exporting = (
            torch.compiler.is_exporting()
        )  # sides may be free: no branch by them
        if not (exporting or height % self.multiple or width % self.multiple):
            return self.outputs(y)
        rows, columns = (self._places(side, y.device) for side in (height, width))
        larger = self.outputs(y[..., rows[:, None], columns])
        return larger[..., rows[:height, None], columns[:width]]

    def _places(self, side: int, device: torch.device) -> Tensor:
        """Return the pixels that continue a side of an image to a multiple."""
        places = torch.arange(
            (side + self.multiple - 1) // self.multiple * self.multiple, device=device
        )
        return torch.minimum(places, (2 * side - 2 - places).clamp(min=0))

    def outputs(self, y: Tensor) -> Tensor:
        """Return the outputs for images whose sides are multiples of `multiple`."""
        raise NotImplementedError
