"""Boundary conditions, and convolutions of a padded image.

A boundary has one name. It selects the padding of the convolutions in explicit steps and
the transform that diagonalises the operator of implicit steps.

Shapes: images (B, C, H, W); kernels (C_out, C_in, k, k), or (C, 1, k, k) if depthwise.
"""

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from imex_experiments.operators.stencils import require_odd

BOUNDARIES = ("periodic", "neumann", "dirichlet")
"""Boundaries whose transform diagonalises the implicit operator."""

PADDINGS = ("zeros", *BOUNDARIES)
"""Paddings of explicit convolutions; dirichlet pads with zeros, neumann with the edge."""

WHY_NOT_REFLECT = (
    "; reflect is not offered: its stencil matrices are not symmetric, so (I + h L)^-1 "
    "would not be its own transpose; use neumann"
)


def require_boundary(name: str) -> str:
    """Return the name of a boundary; ValueError with the choices for an unknown one."""
    return _require("boundary", name, BOUNDARIES)


def require_padding(name: str) -> str:
    """Return the name of a padding; ValueError with the choices for an unknown one."""
    return _require("padding", name, PADDINGS)


def _require(key: str, name: str, choices: tuple[str, ...]) -> str:
    if name not in choices:
        why = WHY_NOT_REFLECT if name == "reflect" else ""
        raise ValueError(
            f"{key} must be one of {', '.join(choices)}, got {name!r}{why}"
        )
    return name


def convolve(y: Tensor, kernel: Tensor, padding: str, dilation: int = 1) -> Tensor:
    """Return K y, of the size of y. The taps of the kernel are `dilation` pixels apart.

    Raises ValueError for an even kernel and for an image smaller than the kernel.
    """
    margin = _margin(y, kernel, dilation)
    groups = y.shape[1] // kernel.shape[1]
    conv2d = partial(F.conv2d, weight=kernel, dilation=dilation, groups=groups)
    if padding == "periodic":
        return conv2d(F.pad(y, [margin] * 4, mode="circular"))
    if padding == "neumann":
        return conv2d(_repeat_edge(_repeat_edge(y, -2, margin), -1, margin))
    return conv2d(y, padding=margin)


def convolve_adjoint(y: Tensor, kernel: Tensor, padding: str) -> Tensor:
    """Return K^T y, the adjoint of `convolve` in the Euclidean inner product.

    The kernel mixes all channels: (C_out, C_in, k, k). For zero and periodic padding, K^T
    is the convolution with the point-reflected kernel, its input and output channels
    exchanged. For neumann padding, K^T convolves without padding and adds the values that
    land outside the image to its edge.
    """
    if padding != "neumann":
        return convolve(y, kernel.transpose(0, 1).flip(-2, -1), padding)
    margin = _margin(y, kernel)
    full = F.conv_transpose2d(y, kernel)
    return _fold_into_edge(_fold_into_edge(full, -2, margin), -1, margin)


def _margin(y: Tensor, kernel: Tensor, dilation: int = 1) -> int:
    margin = dilation * (require_odd(kernel.shape[-1]) // 2)
    extent = 2 * margin + 1
    height, width = y.shape[-2:]
    # Two comparisons: min() would write into a compiled graph which side is shorter.
    if height < extent or width < extent:
        raise ValueError(
            f"image of size {(height, width)} is smaller than the kernel "
            f"{(extent, extent)}"
        )
    return margin


def _repeat_edge(y: Tensor, dim: int, margin: int) -> Tensor:
    """Repeat the first and the last line along one axis `margin` times.

    F.pad does the same, but Inductor gets the strides of its result wrong.
    """
    first, last = y.narrow(dim, 0, 1), y.narrow(dim, -1, 1)
    return torch.cat([first] * margin + [y] + [last] * margin, dim)


def _fold_into_edge(z: Tensor, dim: int, margin: int) -> Tensor:
    """Add the margins along one axis to the edge lines: the adjoint of `_repeat_edge`."""
    size = z.shape[dim] - 2 * margin
    before, inside, after = z.split([margin + 1, size - 2, margin + 1], dim)
    return torch.cat(
        [before.sum(dim, keepdim=True), inside, after.sum(dim, keepdim=True)], dim
    )
