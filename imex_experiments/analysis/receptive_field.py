"""How far a pixel of a layer sees.

Shapes: images (B, C, H, W); fields (H, W), energies.
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
    """Of every pixel to the nearest of some points (row, column), in pixels."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    return np.min([np.hypot(rows - r, columns - c) for r, c in points], axis=0)


def share_beyond(field: Field, distance: Field, pixels: float) -> float:
    """The share of the energy that is further away than some pixels."""
    return float(field[distance > pixels].sum() / field.sum())


def radius(field: Field, distance: Field, share: float = 0.95) -> float:
    """The distance in pixels within which `share` of the energy lies."""
    order = np.argsort(distance, axis=None)
    held = np.cumsum(field.ravel()[order])
    return float(distance.ravel()[order][np.searchsorted(held, share * held[-1])])


def effective_fields(network: nn.Module, images: Tensor) -> dict[str, Field]:
    """The effective receptive field of the middle pixel of every part, by name.

    The sum over the images of the squared gradient of that pixel, its channels added with
    random signs, with respect to the image; the network as it is, in evaluation mode.
    Parts whose output is no image are left out. Source: Luo et al., Understanding the
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
    middle = output[..., output.shape[-2] // 2, output.shape[-1] // 2]
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(2, middle.shape, generator=generator).to(middle) * 2 - 1
    (gradient,) = torch.autograd.grad((signs * middle).sum(), images, retain_graph=True)
    return gradient.square().sum((0, 1)).double().cpu().numpy()
