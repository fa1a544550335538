"""Boundaries: one name gives the padding of explicit steps and the transform of implicit ones.

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
    """The name itself; ValueError with the choices for an unknown one."""
    return _require("boundary", name, BOUNDARIES)


def require_padding(name: str) -> str:
    """The name itself; ValueError with the choices for an unknown one."""
    return _require("padding", name, PADDINGS)


def _require(what: str, name: str, choices: tuple[str, ...]) -> str:
    if name not in choices:
        why = WHY_NOT_REFLECT if name == "reflect" else ""
        raise ValueError(
            f"{what} must be one of {', '.join(choices)}, got {name!r}{why}"
        )
    return name


def convolve(y: Tensor, kernel: Tensor, padding: str, dilation: int = 1) -> Tensor:
    """K y at the size of y, k odd, the taps `dilation` pixels apart.

    ValueError for an image smaller than the kernel.
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
    """K^T y, the adjoint of `convolve` in the Euclidean product, for kernels of all channels.

    For zero and periodic padding it is the convolution with the point-reflected kernel,
    input and output channels exchanged. For neumann what falls outside of the image is
    added to its edge.
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
    if height < extent or width < extent:  # min() would fix in a graph which is smaller
        raise ValueError(
            f"image of size {(height, width)} is smaller than the kernel "
            f"{(extent, extent)}"
        )
    return margin


def _repeat_edge(y: Tensor, dim: int, margin: int) -> Tensor:
    """Replicate padding along one axis (Inductor mistakes the strides of F.pad's)."""
    first, last = y.narrow(dim, 0, 1), y.narrow(dim, -1, 1)
    return torch.cat([first] * margin + [y] + [last] * margin, dim)


def _fold_into_edge(z: Tensor, dim: int, margin: int) -> Tensor:
    """The adjoint of `_repeat_edge`."""
    size = z.shape[dim] - 2 * margin
    before, inside, after = z.split([margin + 1, size - 2, margin + 1], dim)
    return torch.cat(
        [before.sum(dim, keepdim=True), inside, after.sum(dim, keepdim=True)], dim
    )
