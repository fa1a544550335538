"""Register the derivatives of the kernels with torch.

A set of kernels provides two operations on images x, g (B, C, H, W) and a transfer function
t (C, ...). product(x, t) = F^-1 (t F x) is linear in t and in x, and symmetric in x.
gradients(g, x, t) returns the gradients of <g, product(x, t)>: in x it is product(g, t), in
t it is the cross spectrum of g and x, which is linear in both. So each operation is a
derivative of the other, and derivatives of any order need only these two.
"""

from typing import Any

import torch
from torch import Tensor
from torch.library import CustomOpDef


def make_differentiable(product: CustomOpDef, gradients: CustomOpDef) -> None:
    """Register the shapes and the derivatives of the two operations of some kernels."""

    def keep_product(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, t = inputs
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, t)

    def product_backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, t = ctx.saved_tensors
        return (product(g, t), None) if x is None else gradients(g, x, t)

    def keep_gradients(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs)

    def gradients_backward(ctx: Any, v: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        """Differentiate `gradients`, given gradients v of grad_x and w of grad_t."""
        g, x, t = ctx.saved_tensors
        to_g, to_t = gradients(v, g, t)
        return to_g + product(x, w), product(g, w), to_t

    product.register_fake(lambda x, t: _planes_like(x))
    gradients.register_fake(lambda g, x, t: (_planes_like(x), torch.empty_like(t)))
    product.register_autograd(product_backward, setup_context=keep_product)
    gradients.register_autograd(gradients_backward, setup_context=keep_gradients)


def _planes_like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)
