"""Networks of other packages, with few and named arguments, and implicit steps in them.

The packages are imported when a network is built. Weights are drawn anew, nothing is
downloaded.

Shapes: images (B, in_channels, H, W) to (B, out_channels, H, W), of any H and W.
"""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Literal

from torch import Tensor, nn

from imex_experiments.installed import install_line
from imex_experiments.networks.any_size import AnySize
from imex_experiments.networks.imexify import imexify

TORCHVISION = (
    f"{install_line('vision')}, with the torchvision that is built for your torch, from the "
    "same index"
)


class Backbone(AnySize):
    """A network of another package.

    h and alpha have no effect; they exist so that a sweep can set them for every model.
    """

    def __init__(self, network: nn.Module, multiple: int = 1, h: float = 1.0) -> None:
        super().__init__(multiple)
        self.network = network
        self.h, self.alpha = float(h), 0.0

    def outputs(self, y: Tensor) -> Tensor:
        return self.network(y)


class MonaiUNet(Backbone):
    """MONAI's U-Net, of residual units if `units` > 0 (Kerfoot et al. 2018).

    `widths` has one entry per level; each level halves the image. `units` is the number of
    convolutions in a residual unit. Raises ValueError for fewer than two widths.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        widths: Sequence[int],
        units: int = 2,
        norm: Literal["batch", "instance"] = "batch",
        activation: Literal["prelu", "relu"] = "prelu",
        dropout: float = 0.0,
        h: float = 1.0,
        alpha: float = 0.0,
    ) -> None:
        if len(widths) < 2 or min(widths) < 1 or units < 0:
            raise ValueError(
                "expected two or more positive widths and units >= 0, got "
                f"widths={list(widths)}, units={units}"
            )
        network = _imported("monai.networks.nets", install_line("backbones")).UNet(
            spatial_dims=2,
            in_channels=in_channels,
            out_channels=out_channels,
            channels=tuple(widths),
            strides=(2,) * (len(widths) - 1),
            num_res_units=units,
            norm=norm,
            act=activation,
            dropout=dropout,
        )
        super().__init__(network, 2 ** (len(widths) - 1), h)


class MonaiSegResNet(Backbone):
    """MONAI's SegResNet, an encoder and a smaller decoder (Myronenko 2018, without VAE).

    `width` is the number of channels at the size of the image, a multiple of 8; each level
    doubles it. `down` and `up` are the residual blocks of each level of the encoder and of
    the decoder, which has one level less. Raises ValueError for another width or number
    of levels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        width: int = 8,
        down: Sequence[int] = (1, 2, 2, 4),
        up: Sequence[int] = (1, 1, 1),
        dropout: float | None = None,
        h: float = 1.0,
        alpha: float = 0.0,
    ) -> None:
        if width < 1 or width % 8:
            raise ValueError(f"width must be a multiple of 8, got {width}")
        if len(down) < 2 or len(up) != len(down) - 1 or min(*down, *up) < 1:
            raise ValueError(
                "down must have one level more than up, and every level a block, got "
                f"down={list(down)}, up={list(up)}"
            )
        network = _imported("monai.networks.nets", install_line("backbones")).SegResNet(
            spatial_dims=2,
            init_filters=width,
            in_channels=in_channels,
            out_channels=out_channels,
            dropout_prob=dropout,
            blocks_down=tuple(down),
            blocks_up=tuple(up),
        )
        super().__init__(network, 2 ** len(up), h)


class TorchvisionSegmentation(Backbone):
    """A network of torchvision.models.segmentation, without its auxiliary output.

    Its stem is a new convolution where images do not have three channels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        name: Literal[
            "fcn_resnet50",
            "fcn_resnet101",
            "deeplabv3_resnet50",
            "deeplabv3_resnet101",
            "deeplabv3_mobilenet_v3_large",
            "lraspp_mobilenet_v3_large",
        ] = "deeplabv3_mobilenet_v3_large",
        h: float = 1.0,
        alpha: float = 0.0,
    ) -> None:
        models = _imported("torchvision.models.segmentation", TORCHVISION)
        network = getattr(models, name)(
            weights=None, weights_backbone=None, num_classes=out_channels
        )
        if in_channels != 3:
            _replace_stem(network, in_channels)
        super().__init__(network, 1, h)

    def outputs(self, y: Tensor) -> Tensor:
        return self.network(y)["out"]


class Smp(Backbone):
    """A network of segmentation_models_pytorch: an architecture with an encoder."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        architecture: str = "unet",
        encoder: str = "resnet18",
        h: float = 1.0,
        alpha: float = 0.0,
    ) -> None:
        smp = _imported("segmentation_models_pytorch", TORCHVISION)
        try:
            network = smp.create_model(
                architecture, encoder, None, in_channels, out_channels
            )
        except KeyError as error:  # its message lists the names that are known
            raise ValueError(error.args[0]) from error
        super().__init__(network, 32, h)


class Imexified(nn.Module):
    """Any of these networks with implicit steps in its residual sums (see `imexify`).

    `network(in_channels, out_channels)` returns the network. `where` selects its
    submodules by name. Raises ValueError as `imexify` does.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        network: Callable[..., nn.Module],
        h: float = 1.0,
        alpha: float = 1.0,
        where: str = "*",
        boundary: str = "periodic",
    ) -> None:
        super().__init__()
        explicit = network(in_channels=in_channels, out_channels=out_channels)
        self.network = imexify(explicit, h, alpha, where, boundary)
        self.multiple = getattr(explicit, "multiple", 1)
        self.h, self.alpha = float(h), float(alpha)

    def forward(self, y: Tensor) -> Tensor:
        return self.network(y)


def _imported(name: str, remedy: str) -> Any:
    """Import a module of an optional package.

    Raises ModuleNotFoundError with the remedy if it is not there, or does not import: a
    torchvision that is built for another torch raises a RuntimeError.
    """
    package = name.partition(".")[0]
    try:
        return import_module(name)
    except Exception as error:  # foreign code may raise anything
        reason = " ".join(str(error).split())
        raise ModuleNotFoundError(
            f"{package} does not import here ({reason}); {remedy}"
        ) from error


def _replace_stem(network: nn.Module, in_channels: int) -> None:
    """Replace the first convolution by one for images of `in_channels` channels."""
    name, stem = next(
        (name, module)
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d)
    )
    settings: dict[str, Any] = {
        key: getattr(stem, key)
        for key in ("out_channels", "kernel_size", "stride", "padding")
    }
    bias = stem.bias is not None
    network.set_submodule(name, nn.Conv2d(in_channels, **settings, bias=bias))
