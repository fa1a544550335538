"""A layer: the right-hand side f of Y' = f(Y)."""

from torch import Tensor, nn

from imex_experiments.terms import Convolution


class GatedLayer(nn.Module):
    """The layer f(Y) = K2 (tanh(K1 Y) sigmoid(G Y)).

    Shapes: (B, C, H, W) to the same, C = `channels`.
    """

    def __init__(
        self, channels: int, kernel_size: int = 3, padding: str = "zeros"
    ) -> None:
        super().__init__()
        self.K1 = Convolution(channels, channels, kernel_size, padding)
        self.G = Convolution(channels, channels, kernel_size, padding)
        self.K2 = Convolution(channels, channels, kernel_size, padding)

    def forward(self, y: Tensor) -> Tensor:
        return self.K2(self.K1(y).tanh() * self.G(y).sigmoid())
