"""What stands between the blocks: connectors that change the width, and the head."""

from torch import Tensor, nn

from imex_experiments.terms.layers import Convolution, make_activation, make_norm


class Connector(nn.Module):
    """sigma(N(K Y)): C_in to C_out channels at the same resolution."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        padding: str = "zeros",
        norm: str = "batch",
        activation: str = "relu",
    ) -> None:
        super().__init__()
        self.K = Convolution(in_channels, out_channels, kernel_size, padding)
        self.norm = make_norm(norm, out_channels)
        self.activation = make_activation(activation)

    def forward(self, y: Tensor) -> Tensor:
        return self.activation(self.norm(self.K(y)))


class Head(nn.Conv2d):
    """A 1 x 1 convolution from features to outputs, no bias, at input resolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=1, bias=False)
