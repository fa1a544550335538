"""The implicit solve (I + h L)^-1 x, and the product with any real even symbol.

A transform F diagonalises L: L = F^-1 lambda F with the symbol lambda. The solve is then
F^-1 (t F x) with the transfer function t = 1 / (1 + h lambda).

Shapes: x (B, C, H, W) real; a symbol broadcasts to (C, H, W // 2 + 1) for a periodic
boundary and to (C, H, W) for the others; t and spectra X, G as the transform lays them out.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from imex_experiments.operators.kernels.available import (
    forbids_kernels,
    kernels_for,
)
from imex_experiments.operators.precision import without_autocast
from imex_experiments.operators.select import choose
from imex_experiments.operators.stencils import gram_symbol
from imex_experiments.operators.tracing import is_transformed
from imex_experiments.operators.transforms import (
    Fused,
    Periodic,
    PeriodicTriton,
    Transform,
)

BLOCK_BYTES = 2**21
"""Bytes of images that a CPU solves at a time: they fit, with spectra, into its L2 cache."""


class _SymbolProduct(torch.autograd.Function):
    """Compute y = S x and the spectrum X = F x, with S = F^-1 t F.

    S is symmetric, so the gradient of x is S g. The spectrum G of g, together with X,
    gives the gradient of t (see `_Cross`). The backward pass keeps t, and X only if t
    needs a gradient. X is returned, not only saved, so that autograd can derive the
    gradient of t, which depends on x through X.
    Gradients of spectra use the inner product in which F^-1 is the adjoint of F.
    """

    @staticmethod
    def forward(x: Tensor, t: Tensor, transform: Transform) -> tuple[Tensor, Tensor]:
        X = transform.new_spectrum(x if t.requires_grad else x[:0])
        return _product(x, t, transform, X if t.requires_grad else None), X

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
        _, t, ctx.transform = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(output[1] if ctx.needs_input_grad[1] else None, t)

    @staticmethod
    def backward(
        ctx: Any, g: Tensor | None, gX: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, None]:
        X, t = ctx.saved_tensors
        # gX and recorded gradients occur only in a double backward pass.
        if g is not None and gX is None and not torch.is_grad_enabled():
            return *_product_and_cross(g, t, ctx.transform, X), None
        grad_x = grad_t = None
        if g is not None:
            grad_x, G = _SymbolProduct.apply(g, t, ctx.transform)
            if X is not None:
                grad_t = _Cross.apply(X, G, t, ctx.transform)
        if gX is not None:
            back = _Inverse.apply(gX, t, ctx.transform)
            grad_x = back if grad_x is None else grad_x + back
        return grad_x, grad_t, None


def _product(x: Tensor, t: Tensor, F: Transform, X: Tensor | None = None) -> Tensor:
    """Return S x, block by block; write the spectrum of x to X if X is given."""
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    with without_autocast(x):
        for images, channels in _blocks(x):
            spectrum = F.forward(x[images, channels])
            if X is not None:
                X[images, channels] = spectrum
            y[images, channels] = F.inverse(F.overwrite(spectrum, t[channels]))
    return y


def _product_and_cross(
    g: Tensor, t: Tensor, F: Transform, X: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Return S g and, if X is given, the gradient of t, block by block."""
    grad_x = torch.empty_like(g, memory_format=torch.contiguous_format)
    grad_t = None if X is None else torch.zeros_like(t)
    with without_autocast(g):
        for images, channels in _blocks(g):
            G = F.forward(g[images, channels])
            if X is not None and grad_t is not None:
                F.add_cross(grad_t[channels], X[images, channels], G)
            grad_x[images, channels] = F.inverse(F.overwrite(G, t[channels]))
    if grad_t is not None:
        grad_t *= F.weights(grad_t)
    return grad_x, grad_t


def _blocks(x: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield the images and channels that are solved at a time, as slices.

    A block is a whole batch of a few channels if that fits, because a batch shares t and
    the gradient of t.
    """
    batch, channels, height, width = x.shape
    planes = batch * channels
    if x.is_cpu:
        planes = max(1, BLOCK_BYTES // (height * width * x.element_size()))
    many = max(1, min(planes, batch))
    wide = max(1, planes // max(1, batch))
    for i in range(0, batch, many):
        for j in range(0, channels, wide):
            yield slice(i, i + many), slice(j, j + wide)


class _Cross(torch.autograd.Function):
    """Compute the gradient of t from the spectra X and G; it is linear in each of them.

    t is an argument only because the gradient has its layout.
    """

    @staticmethod
    def forward(X: Tensor, G: Tensor, t: Tensor, transform: Transform) -> Tensor:
        total = torch.zeros_like(t)
        transform.add_cross(total, X, G)
        return total * transform.weights(total)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        X, G, _, ctx.transform = inputs
        ctx.save_for_backward(X, G)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        X, G = ctx.saved_tensors
        F = ctx.transform
        return F.multiply(G, grad), F.multiply(X, grad), None, None


class _Inverse(torch.autograd.Function):
    """Compute x = F^-1 X. Its adjoint is F: the second output of `_SymbolProduct`."""

    @staticmethod
    def forward(X: Tensor, t: Tensor, transform: Transform) -> Tensor:
        with without_autocast(t):
            return transform.inverse(X.clone())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        _, t, ctx.transform = inputs
        ctx.save_for_backward(t)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        return _SymbolProduct.apply(g, *ctx.saved_tensors, ctx.transform)[1], None, None


def symbol_product(
    x: Tensor, symbol: Tensor, boundary: str = "periodic", backend: str = "auto"
) -> Tensor:
    """Return F^-1 (symbol * F x), channel by channel, for any real even symbol.

    The result has the dtype and the memory format of x. Half-precision images are
    transformed in float32, under autocast too. Twice differentiable in x and symbol.

    Raises ValueError for images that are not real floating point (B, C, H, W), a symbol of
    another size, a periodic symbol that is not even, an unknown boundary, and a backend
    that is unknown or cannot be used.
    """
    F = transform_of(x, boundary, backend)
    return apply_transfer(x, transfer_of(symbol, x, F), F)


def transform_of(x: Tensor, boundary: str, backend: str) -> Transform:
    """Return the transform for images like x; ValueError as in `symbol_product`.

    backend="fused" becomes `gemm` where no kernel can run: under torch.func, in an
    exported graph, and on the meta device.
    """
    if x.ndim != 4 or not x.is_floating_point():
        raise ValueError(
            f"images must be floating point (B, C, H, W), got {x.dtype} {tuple(x.shape)}"
        )
    size = (x.shape[-2], x.shape[-1])
    kernels = kernels_for(x) if backend in ("auto", "fused") else None
    if backend == "fused" and kernels is None and not forbids_kernels(x):
        raise ValueError(
            f"backend=fused has no kernels for {x.dtype} on {x.device}; "
            "take backend=auto"
        )
    return choose(size, boundary, backend, kernels, x.dtype)


def transfer_of(symbol: Tensor, x: Tensor, F: Transform) -> Tensor:
    """Return the symbol as transfer function t: in the layout of F, float32 or float64.

    Raises ValueError for a symbol of another size and a periodic one that is not even.
    """
    whole = (x.shape[1], *F.waves)
    try:
        symbol = symbol.expand(whole)
    except RuntimeError as error:
        raise ValueError(
            f"symbol of shape {tuple(symbol.shape)} does not fit {whole}, "
            f"images are {tuple(x.shape)}"
        ) from error
    if isinstance(F, Periodic):
        _require_even(symbol, F.size)
    return F.lay_out(symbol.to(torch.promote_types(x.dtype, torch.float32)))


def _require_even(symbol: Tensor, size: tuple[int, int]) -> None:
    """Raise ValueError unless t(-k) = t(k) to half of the digits.

    Half a spectrum holds both k and -k only on its first column, and on the last column of
    an even width. Symbols on a GPU or in a traced graph are not checked.
    """
    height, width = size
    # Reading a value back would stall a GPU, and is impossible in a traced graph.
    if is_transformed() or not symbol.is_cpu or height < 3:
        return
    columns = symbol.detach()[..., 1:, :: width // 2 if width % 2 == 0 else width]
    scale, odd = columns.abs().amax(), (columns - columns.flip(-2)).abs().amax()
    if odd > torch.finfo(symbol.dtype).eps ** 0.5 * (1 + scale):
        raise ValueError(
            "a periodic symbol must be even, t(-k) = t(k); on columns that hold both "
            f"they differ by {float(odd):.1e}"
        )


def apply_transfer(x: Tensor, t: Tensor, F: Transform) -> Tensor:
    """Return F^-1 (t F x) in the dtype and memory format of x; t from `transfer_of`."""
    if isinstance(F, Fused):
        return _in_format_of(x, F.product(x, t))
    y = x.to(t.dtype)
    if is_transformed():
        with without_autocast(x):
            y = F.inverse(F.multiply(F.forward(y), t))
    elif torch.is_grad_enabled():
        y, _ = _SymbolProduct.apply(y, t, F)
    else:
        y = _product(y, t, F)
    return _in_format_of(x, y.to(x.dtype))


def _in_format_of(x: Tensor, y: Tensor) -> Tensor:
    """Return y, in channels-last format if x is; torch.func has no memory formats."""
    if torch._C._are_functorch_transforms_active() or x.is_contiguous():
        return y
    last = x.is_contiguous(memory_format=torch.channels_last)
    return y.contiguous(memory_format=torch.channels_last) if last else y


def resolvent(symbol: Tensor, h: float | Tensor) -> Tensor:
    """Return 1 / (1 + h lambda), the symbol of (I + h L)^-1."""
    if isinstance(h, Tensor) or is_transformed():
        return (1 + h * symbol).reciprocal()
    return _Resolvent.apply(symbol, h)


class _Resolvent(torch.autograd.Function):
    """Compute 1 / (1 + h lambda) in place, as a symbol may be as large as the images."""

    @staticmethod
    def forward(ctx: Any, symbol: Tensor, h: float) -> Tensor:
        ctx.h = h
        t = symbol.mul(h).add_(1).reciprocal_()
        ctx.save_for_backward(t)
        return t

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        (t,) = ctx.saved_tensors
        return (g * t).mul_(t).mul_(-ctx.h), None


def solve_symbol(
    x: Tensor,
    symbol: Tensor,
    h: float | Tensor,
    boundary: str = "periodic",
    backend: str = "auto",
) -> Tensor:
    """Return (I + h L)^-1 x = F^-1 (F x / (1 + h lambda)) for the symbol lambda of L.

    lambda >= 0, so the solve is symmetric and a contraction. It keeps the mean of x if
    lambda(0) = 0. Raises ValueError like `symbol_product`. Source: IMEXnet, Algorithm 1.
    """
    return symbol_product(x, resolvent(symbol, h), boundary, backend)


def solve_gram(
    x: Tensor,
    taps: Tensor,
    h: float | Tensor,
    boundary: str = "periodic",
    backend: str = "auto",
) -> Tensor:
    """Return (I + h B^T B)^-1 x for the stencil B with taps (C, kh, kw).

    It is `solve_symbol` for the symbol of B^T B. Triton kernels compute the transfer
    function from the taps directly, without the symbol.
    """
    F = transform_of(x, boundary, backend)
    if isinstance(F, PeriodicTriton):
        t = F.gram_transfer(taps * h**0.5)
    else:
        t = transfer_of(resolvent(gram_symbol(taps, F.size, boundary), h), x, F)
    return apply_transfer(x, t, F)
