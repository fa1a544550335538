"""Products with a real even symbol, and with them (I + h L)^-1 x.

Shapes: x (B, C, H, W) real; symbol (C, H, W // 2 + 1) or anything that broadcasts to it.
"""

from typing import Any

import torch
from torch import Tensor

from imex_experiments.operators.boundary import (
    from_spectrum,
    spectral_weights,
    spectrum,
)


class _SymbolProduct(torch.autograd.Function):
    """y = F^-1 (t F x). The product is symmetric, so the gradient of x is the same product.

    d loss / d t(k) = w_k / (H W) sum_b Re(conj(g^(k)) x^(k)). Only x and t are kept.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, t: Tensor) -> Tensor:
        return from_spectrum(spectrum(x).mul_(t), _size(x))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, t = ctx.saved_tensors
        grad_x = grad_t = None
        g_hat = spectrum(g)
        if ctx.needs_input_grad[1]:
            grad_t = _cross_spectrum(spectrum(x), g_hat, _size(x)).sum_to_size(t.shape)
        if ctx.needs_input_grad[0]:
            # Under double backward the product must be differentiated again as a whole.
            again = torch.is_grad_enabled()
            grad_x = (
                _SymbolProduct.apply(g, t)
                if again
                else from_spectrum(g_hat.mul_(t), _size(x))
            )
        return grad_x, grad_t


def _size(x: Tensor) -> tuple[int, int]:
    return x.shape[-2], x.shape[-1]


def _cross_spectrum(x_hat: Tensor, g_hat: Tensor, size: tuple[int, int]) -> Tensor:
    """w / (H W) sum_b Re(conj(g^) x^), the derivative of <g, F^-1 t x^> in t."""
    product = x_hat.real * g_hat.real + x_hat.imag * g_hat.imag
    return product.sum(0) * spectral_weights(size, like=product)


def symbol_product(x: Tensor, symbol: Tensor) -> Tensor:
    """F^-1 (symbol * F x) per channel, for any real even symbol.

    Half-precision images are transformed in float32 and returned in their own dtype.
    Differentiable twice in both arguments. ValueError for images that are not real
    floating point (B, C, H, W).
    """
    if x.ndim != 4 or not x.is_floating_point():
        raise ValueError(
            f"images must be floating point (B, C, H, W), got {x.dtype} {tuple(x.shape)}"
        )
    wide = torch.promote_types(x.dtype, torch.float32)
    return _SymbolProduct.apply(x.to(wide), symbol.to(wide)).to(x.dtype)


def implicit_conv(x: Tensor, symbol: Tensor, h: float | Tensor) -> Tensor:
    """(I + h L)^-1 x = F^-1 (F x / (1 + h lambda)), lambda >= 0 the symbol of L.

    Symmetric and a contraction; means are kept where lambda(0) = 0 (IMEXnet, Algorithm 1).
    """
    return symbol_product(x, 1 / (1 + h * symbol))
