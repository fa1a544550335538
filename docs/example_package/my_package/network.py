"""A network: any torch module that takes in_channels and out_channels."""

from torch import Tensor, nn


class PlainNet(nn.Module):
    """Convolutions with ReLU, which know nothing of h and alpha.

    Shapes: (B, in_channels, H, W) float32 to (B, out_channels, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int, width: int = 8) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width must be >= 1, got {width}")
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
        )
        self.head = nn.Conv2d(width, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))
