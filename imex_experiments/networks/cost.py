"""Count the parameters of a network and the floating-point operations for one image."""

import copy
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized
from torch.utils.flop_counter import FlopCounterMode

from imex_experiments.networks.connectors import Head
from imex_experiments.terms.diffusion import GramDiffusion
from imex_experiments.terms.layers import Convolution


def count_parameters(network: nn.Module) -> dict[str, int]:
    """Return the number of trainable weights: convolution, diffusion, head, other, total.

    The published IMEXnet for Q-tips (widths 64, 128, 256, each with a connector and three
    symmetric layers) has 2,691,648 convolution weights without the head. Its operators
    B^T B add 9 weights per channel and step, 12,096 in all. The paper counts 9,792 =
    9 (3 x 64 + 3 x 128 + 2 x 256), which omits one of the three operators at width 256.
    """
    kinds = {"convolution": Convolution, "diffusion": GramDiffusion, "head": Head}
    counts = dict.fromkeys((*kinds, "other"), 0)
    for module in network.modules():
        kind = next((k for k, cls in kinds.items() if isinstance(module, cls)), "other")
        counts[kind] += sum(p.numel() for p in _own(module) if p.requires_grad)
    return {**counts, "total": sum(counts.values())}


def _own(module: nn.Module) -> Iterator[nn.Parameter]:
    """Yield the parameters of a module itself, including those that a constraint holds."""
    if not isinstance(module, ParametrizationList):
        yield from module.parameters(recurse=False)
        if is_parametrized(module):
            yield from module.parametrizations.parameters()  # type: ignore[union-attr]


def count_flops(
    network: nn.Module, image_shape: tuple[int, int, int]
) -> dict[str, int]:
    """Return the floating-point operations of a forward pass of one image (C, H, W).

    The keys are the names of `parts`, and "total". A multiplication with an addition
    counts as two. Convolutions, matrix products and FFTs count; pointwise operations do
    not. A complex FFT of n points counts as 5 n log2 n, a real one as half of that. An
    implicit step counts as one evaluation of f, because the work of its solver depends on
    the image. The network runs on the meta device, without memory or arithmetic.
    """
    shadow = copy.deepcopy(network).to("meta").eval()
    counter = FlopCounterMode(display=False, custom_mapping=FFTS)
    with counter, torch.no_grad():
        shadow(torch.empty(1, *image_shape, device="meta"))
    by_module = counter.get_flop_counts()
    root = type(network).__name__
    own = {name: by_module.get(f"{root}.{name}", {}) for name in parts(network)}
    flops = {name: sum(counts.values()) for name, counts in own.items()}
    return {**flops, "total": counter.get_total_flops()}


def parts(network: nn.Module) -> dict[str, nn.Module]:
    """Return the children of a network by name; a list gives its entries, `name.index`."""
    found: dict[str, nn.Module] = {}
    for name, child in network.named_children():
        if isinstance(child, (nn.Sequential, nn.ModuleList)):
            found |= {f"{name}.{inner}": part for inner, part in child.named_children()}
        else:
            found[name] = child
    return found


def _transforms(shape: Any, dims: Any, factor: float) -> int:
    """Return factor x n log2 n for each of the transforms of n points along `dims`."""
    points = math.prod(shape[dim] for dim in dims)
    return round(factor * math.prod(shape) * math.log2(max(points, 2)))


def _real_fft(shape: Any, dims: Any, *_: Any, out_shape: Any, **__: Any) -> int:
    real = max(shape, out_shape, key=lambda s: s[dims[-1]])
    return _transforms(real, dims, 2.5)


def _complex_fft(shape: Any, dims: Any, *_: Any, out_shape: Any, **__: Any) -> int:
    return _transforms(shape, dims, 5.0)


FFTS = {
    torch.ops.aten._fft_r2c: _real_fft,
    torch.ops.aten._fft_c2r: _real_fft,
    torch.ops.aten._fft_c2c: _complex_fft,
}
"""FLOPs of an FFT operation, from the shapes of its arguments and of its result."""


def _fused_product(x: Any, t: Any, **_: Any) -> int:
    return 2 * _transforms(x, (-2, -1), 2.5)


def _fused_gradients(g: Any, x: Any, t: Any, **_: Any) -> int:
    return 3 * _transforms(x, (-2, -1), 2.5)


KERNELS = {
    torch.ops.imex_experiments.cpp_product: _fused_product,
    torch.ops.imex_experiments.cpp_gradients: _fused_gradients,
}
"""FLOPs of the C++ kernels. Other backends are counted by the operations they call."""
