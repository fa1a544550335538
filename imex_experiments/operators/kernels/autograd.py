"""Products with a periodic symbol in kernels of our own, as operations torch can derive.

Of images x (B, C, H, W) and factors t, channels first, kernels give two operations:
product(x, t) = F^-1 (t F x), symmetric in x and linear in t, and gradients(g, x, t), those
of <g, product(x, t)> in x and in t: product(g, t), and a cross spectrum that is linear in x
and in g. So the two are each other's derivatives, to any order.
"""

from typing import Any

import torch
from torch import Tensor
from torch.library import CustomOpDef


def make_differentiable(product: CustomOpDef, gradients: CustomOpDef) -> None:
    """Tell torch shapes and derivatives of the two operations of some kernels."""

    def keep_product(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, t = inputs
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, t)

    def product_backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, t = ctx.saved_tensors
        return (product(g, t), None) if x is None else gradients(g, x, t)

    def keep_gradients(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs)

    def gradients_backward(ctx: Any, v: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        """For v of product(g, t), and w of the cross spectrum, itself factors."""
        g, x, t = ctx.saved_tensors
        to_g, to_t = gradients(v, g, t)
        return to_g + product(x, w), product(g, w), to_t

    product.register_fake(lambda x, t: _planes_like(x))
    gradients.register_fake(lambda g, x, t: (_planes_like(x), torch.empty_like(t)))
    product.register_autograd(product_backward, setup_context=keep_product)
    gradients.register_autograd(gradients_backward, setup_context=keep_gradients)


def _planes_like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)
