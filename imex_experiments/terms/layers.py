"""Right-hand sides f(Y) of the network's ODE Y' = f(Y).

A layer knows no time: `terms.weight_path` turns layers into f(t, Y). N is a norm, sigma an
activation, K, K1, K2, ... are convolutions.

Shapes: f maps Y (B, C, H, W) to the same; kernels (C_out, C_in, k, k).
"""

import math
from functools import partial

import torch
from torch import Tensor, nn

from imex_experiments.operators.boundary import (
    convolve,
    convolve_adjoint,
    require_padding,
)
from imex_experiments.operators.stencils import require_odd
from imex_experiments.terms.norms import make_activation, make_norm


class Convolution(nn.Module):
    """A convolution K y + b of the same size as y; b exists only with bias=True.

    The taps are `dilation` pixels apart. The channels are convolved in `groups` separate
    groups. Raises ValueError for dilation < 1, an even kernel or an unknown padding.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        padding: str = "zeros",
        bias: bool = False,
        dilation: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        require_odd(kernel_size)
        if dilation < 1:
            raise ValueError(f"dilation must be >= 1, got {dilation}")
        self.padding = require_padding(padding)
        self.dilation = dilation
        self.weight = nn.Parameter(
            torch.empty(out_channels, in_channels // groups, kernel_size, kernel_size)
        )
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        self.bias = nn.Parameter(torch.zeros(out_channels, 1, 1)) if bias else None

    def forward(self, y: Tensor) -> Tensor:
        """Return K y + b."""
        product = convolve(y, self.weight, self.padding, self.dilation)
        return product if self.bias is None else product + self.bias

    def adjoint(self, y: Tensor) -> Tensor:
        """Return K^T y."""
        return convolve_adjoint(y, self.weight, self.padding)

    def extra_repr(self) -> str:
        return f"{tuple(self.weight.shape)}, padding={self.padding}"


class DoubleLayer(nn.Module):
    """The layer f(Y) = K2 sigma(N(K1 Y)) with 2 k^2 C^2 weights.

    The taps of both kernels are `dilation` pixels apart (Yu and Koltun 2016).
    Source: IMEXnet eq. 2.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int = 3,
        padding: str = "zeros",
        norm: str = "batch",
        activation: str = "relu",
        dilation: int = 1,
    ) -> None:
        super().__init__()
        convolution = partial(
            Convolution, channels, channels, kernel_size, padding, dilation=dilation
        )
        self.K1 = convolution()
        self.norm = make_norm(norm, channels)
        self.activation = make_activation(activation)
        self.K2 = convolution()

    def forward(self, y: Tensor) -> Tensor:
        return self.K2(self.activation(self.norm(self.K1(y))))


class ContextLayer(DoubleLayer):
    """The layer f(Y) = K2 (Z + C mean(Z)) with Z = sigma(N(K1 Y)).

    The mean is over the pixels of the image, and C is a 1 x 1 convolution. So each pixel
    receives the features of the whole image, without their positions. The layer has
    (2 k^2 + 1) C^2 weights, C the number of channels.
    Source: Liu et al., ParseNet (2015), with a sum in place of concatenation.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int = 3,
        padding: str = "zeros",
        norm: str = "batch",
        activation: str = "relu",
    ) -> None:
        super().__init__(channels, kernel_size, padding, norm, activation)
        self.C = Convolution(channels, channels, 1)

    def forward(self, y: Tensor) -> Tensor:
        z = self.activation(self.norm(self.K1(y)))
        return self.K2(z + self.C(z.mean((-2, -1), keepdim=True)))


class DepthwiseLayer(nn.Module):
    """The layer f(Y) = K2 sigma(K1 N(D Y)), D a k x k kernel per channel.

    K1 and K2 are 1 x 1; between them there are e C channels, e = `expansion`. The layer
    has k^2 C + 2 e C^2 weights. Raises ValueError for expansion < 1.
    Source: Liu et al., A ConvNet for the 2020s (2022); large kernels as in Ding et al.
    (2022).
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int = 13,
        padding: str = "zeros",
        norm: str = "batch",
        activation: str = "relu",
        expansion: int = 2,
    ) -> None:
        super().__init__()
        if expansion < 1:
            raise ValueError(f"expansion must be >= 1, got {expansion}")
        self.D = Convolution(channels, channels, kernel_size, padding, groups=channels)
        self.norm = make_norm(norm, channels)
        self.K1 = Convolution(channels, expansion * channels, 1)
        self.activation = make_activation(activation)
        self.K2 = Convolution(expansion * channels, channels, 1)

    def forward(self, y: Tensor) -> Tensor:
        return self.K2(self.activation(self.K1(self.norm(self.D(y)))))


class SymmetricLayer(nn.Module):
    """The layer f(Y) = -K^T sigma(N(K Y)) with k^2 C^2 weights.

    It is IMEXnet eq. 2 with K2 = -K1^T. If the scale of N is positive and sigma does not
    decrease, its Jacobian -K^T D K, D >= 0, is negative semi-definite, as Theorem 1
    assumes. With `bias` it is -K^T sigma(N(K Y + b)) + c: 2 C more weights, and the same
    kind of Jacobian. Source: DynamicBlocks, DoubleSymLayer.
    """

    sign = -1.0

    def __init__(
        self,
        channels: int,
        kernel_size: int = 3,
        padding: str = "zeros",
        norm: str = "batch",
        activation: str = "relu",
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.K = Convolution(channels, channels, kernel_size, padding, bias)
        self.norm = make_norm(norm, channels)
        self.activation = make_activation(activation)
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1)) if bias else None

    def forward(self, y: Tensor) -> Tensor:
        f = self.sign * self.K.adjoint(self.activation(self.norm(self.K(y))))
        return f if self.bias is None else f + self.bias


class ReleasedLayer(SymmetricLayer):
    """The layer f(Y) = +K^T sigma(N(K Y)) of the released IMEXnet code.

    Its Jacobian is positive semi-definite because of the sign. Theorem 1 does not cover it.
    """

    sign = 1.0


class SkewSymmetricLayer(nn.Module):
    """The layer f(Y) = sigma(N(K Y - K^T Y - gamma Y + b)) with k^2 C^2 + C weights.

    K - K^T is skew-symmetric, so its eigenvalues are imaginary. gamma >= 0 shifts them by
    -gamma. Raises ValueError for gamma < 0. Source: Reshniak and Webster, eq. 8.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int = 3,
        padding: str = "zeros",
        norm: str = "none",
        activation: str = "tanh",
        gamma: float = 0.0,
    ) -> None:
        super().__init__()
        if not (gamma >= 0 and math.isfinite(gamma)):
            raise ValueError(f"gamma must be >= 0 and finite, got {gamma}")
        self.K = Convolution(channels, channels, kernel_size, padding)
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))
        self.norm = make_norm(norm, channels)
        self.activation = make_activation(activation)
        self.gamma = gamma

    def forward(self, y: Tensor) -> Tensor:
        rotated = self.K(y) - self.K.adjoint(y) - self.gamma * y + self.bias
        return self.activation(self.norm(rotated))


class Bottleneck(nn.Module):
    """The layer f(Y) = K3 sigma(N(K2 sigma(N(K1 Y)))), with a k x k kernel on few channels.

    K1 and K3 are 1 x 1, K2 is k x k on c = `inner` channels: 2 C c + k^2 c^2 weights.
    Raises ValueError for inner < 1. Source: He et al. (2016); IMEXnet, sec. 5.2.
    """

    def __init__(
        self,
        channels: int,
        inner: int,
        kernel_size: int = 3,
        padding: str = "zeros",
        norm: str = "batch",
        activation: str = "relu",
    ) -> None:
        super().__init__()
        if inner < 1:
            raise ValueError(f"inner must be >= 1, got {inner}")
        self.K1 = Convolution(channels, inner, 1)
        self.norm1 = make_norm(norm, inner)
        self.K2 = Convolution(inner, inner, kernel_size, padding)
        self.norm2 = make_norm(norm, inner)
        self.K3 = Convolution(inner, channels, 1)
        self.activation = make_activation(activation)

    def forward(self, y: Tensor) -> Tensor:
        y = self.activation(self.norm1(self.K1(y)))
        return self.K3(self.activation(self.norm2(self.K2(y))))
