"""Effective receptive fields: which pixels of the image influence a pixel of a layer.

Shapes: images (B, C, H, W); fields (H, W), energies (squares) per pixel; distances (H, W).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from imex_experiments.networks.cost import parts

Field = NDArray[np.floating]


def distances(size: tuple[int, int], points: list[tuple[int, int]]) -> Field:
    """Return the distance in pixels of every pixel to the nearest point (row, column)."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    return np.min([np.hypot(rows - r, columns - c) for r, c in points], axis=0)


def share_beyond(field: Field, distance: Field, pixels: float) -> float:
    """Return the share of the energy at distances greater than `pixels`."""
    return float(field[distance > pixels].sum() / field.sum())


def radius(field: Field, distance: Field, share: float = 0.95) -> float:
    """Return the distance in pixels that contains `share` of the energy."""
    order = np.argsort(distance, axis=None)
    held = np.cumsum(field.ravel()[order])
    return float(distance.ravel()[order][np.searchsorted(held, share * held[-1])])


def effective_fields(network: nn.Module, images: Tensor) -> dict[str, Field]:
    """Return the effective receptive field of the middle pixel of every part, by name.

    The field is the squared gradient of that pixel with respect to the image, summed over
    images and input channels. The channels of the pixel are added with random signs first.
    Parts whose output is not (B, C, H, W) are left out. The network should be in
    evaluation mode. Source: Luo et al., Understanding the
    effective receptive field (2016), sec. 3.
    """
    outputs: dict[str, Tensor] = {}
    images = images.detach().requires_grad_()

    def keep(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda module, given, output: outputs.update({name: output})

    hooks = [
        part.register_forward_hook(keep(name)) for name, part in parts(network).items()
    ]
    try:
        network(images)
    finally:
        for hook in hooks:
            hook.remove()
    return {n: _energy(y, images) for n, y in outputs.items() if y.ndim == 4}


def _energy(output: Tensor, images: Tensor) -> Field:
    """Return the squared gradient of the middle pixel of the output, (H, W)."""
    middle = output[..., output.shape[-2] // 2, output.shape[-1] // 2]
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(2, middle.shape, generator=generator).to(middle) * 2 - 1
    (gradient,) = torch.autograd.grad((signs * middle).sum(), images, retain_graph=True)
    return gradient.square().sum((0, 1)).double().cpu().numpy()
