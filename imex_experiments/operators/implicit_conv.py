"""Products with a real even symbol, and with them (I + h L)^-1 x.

Shapes: x (B, C, H, W) real; symbol (C, H, W // 2 + 1) where periodic, else (C, H, W), or
anything that broadcasts to it.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from imex_experiments.operators.kernels.available import (
    kernels_for,
    needs_plain_operations,
)
from imex_experiments.operators.precision import without_autocast
from imex_experiments.operators.select import choose
from imex_experiments.operators.stencils import gram_symbol
from imex_experiments.operators.tracing import torch_derives
from imex_experiments.operators.transforms import (
    Fused,
    Periodic,
    PeriodicTriton,
    Transform,
)

BLOCK_BYTES = 2**21
"""Images solved at a time on a CPU: with their spectra they stay in its second cache."""


class _SymbolProduct(torch.autograd.Function):
    """y = S x and its spectrum X = F x, S = F^-1 t F.

    S is symmetric: the gradient of x is the same product S g, whose spectrum G gives that
    of t. Gradients of spectra are those of the inner product in which F^-1 is the adjoint
    of F. X is an output so that second derivatives find x
    through it; beside t it is all that is kept, and only where t has a gradient.
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
        # gX and recorded gradients appear under double backward alone.
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
    """S x, block by block; the spectrum of x is written to X if that is given."""
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
    """S g and, if X is given, the gradient of t, block by block."""
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
    """Images and channels that are solved at a time.

    Whole batches of a few channels where they fit, because factors and their gradient
    are shared by a batch.
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
    """The gradient of t, linear in X and in G; t itself says how it is laid out."""

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
    """x = F^-1 X, whose adjoint F is the second output of the product with any t."""

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
    """F^-1 (symbol * F x) per channel, for any real even symbol.

    Half-precision images are transformed in float32 and returned in their own dtype,
    inside of autocast as well, and in their own memory format.
    Differentiable twice in both arguments. ValueError for images that are not real
    floating point (B, C, H, W), a symbol of another size, a periodic one that is not even,
    an unknown boundary, and a backend that is unknown or cannot be used.
    """
    F = transform_of(x, boundary, backend)
    return apply_factors(x, factors_of(symbol, x, F), F)


def transform_of(x: Tensor, boundary: str, backend: str) -> Transform:
    """The transform for images like x; ValueError as in `symbol_product`.

    Where kernels would be in the way, `gemm` computes what `fused` is asked for: in
    torch.func and exported graphs, and on the meta device.
    """
    if x.ndim != 4 or not x.is_floating_point():
        raise ValueError(
            f"images must be floating point (B, C, H, W), got {x.dtype} {tuple(x.shape)}"
        )
    size, kernels = (x.shape[-2], x.shape[-1]), kernels_for(x)
    if backend == "fused" and kernels is None and not needs_plain_operations(x):
        raise ValueError(
            f"backend=fused has no kernels for {x.dtype} on {x.device}; "
            "take backend=auto"
        )
    return choose(size, boundary, backend, kernels, x.dtype)


def factors_of(symbol: Tensor, x: Tensor, F: Transform) -> Tensor:
    """The symbol laid out and at the precision in which F multiplies images like x.

    ValueError for a symbol of another size, and for a periodic one that is not even.
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
    return F.factors(symbol.to(torch.promote_types(x.dtype, torch.float32)))


def _require_even(symbol: Tensor, size: tuple[int, int]) -> None:
    """ValueError unless t(-k) = t(k) up to half of the digits, where it is cheap to ask.

    Half a spectrum holds both k and -k on self-conjugate columns alone: the first, and
    the last of an even width.
    """
    height, width = size
    # Asking a GPU would make it wait; a graph or a map over symbols cannot ask.
    if torch_derives() or not symbol.is_cpu or height < 3:
        return
    columns = symbol.detach()[..., 1:, :: width // 2 if width % 2 == 0 else width]
    scale, odd = columns.abs().amax(), (columns - columns.flip(-2)).abs().amax()
    if odd > torch.finfo(symbol.dtype).eps ** 0.5 * (1 + scale):
        raise ValueError(
            "a periodic symbol must be even, t(-k) = t(k); on columns that hold both "
            f"they differ by {float(odd):.1e}"
        )


def apply_factors(x: Tensor, t: Tensor, F: Transform) -> Tensor:
    """F^-1 (t * F x) in the dtype and memory format of x, t = factors_of(symbol, x, F)."""
    if isinstance(F, Fused):
        return _laid_out_like(x, F.product(x, t))
    y = x.to(t.dtype)
    if torch_derives():
        with without_autocast(x):
            y = F.inverse(F.multiply(F.forward(y), t))
    elif torch.is_grad_enabled():
        y, _ = _SymbolProduct.apply(y, t, F)
    else:
        y = _product(y, t, F)
    return _laid_out_like(x, y.to(x.dtype))


def _laid_out_like(x: Tensor, y: Tensor) -> Tensor:
    """y, channels last if x is; torch.func knows no memory formats."""
    if torch._C._are_functorch_transforms_active() or x.is_contiguous():
        return y
    last = x.is_contiguous(memory_format=torch.channels_last)
    return y.contiguous(memory_format=torch.channels_last) if last else y


def resolvent(symbol: Tensor, h: float | Tensor) -> Tensor:
    """1 / (1 + h lambda), the symbol of (I + h L)^-1."""
    if isinstance(h, Tensor) or torch_derives():
        return (1 + h * symbol).reciprocal()
    return _Resolvent.apply(symbol, h)


class _Resolvent(torch.autograd.Function):
    """The same in place: a symbol may be as large as the images."""

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


def implicit_conv(
    x: Tensor,
    symbol: Tensor,
    h: float | Tensor,
    boundary: str = "periodic",
    backend: str = "auto",
) -> Tensor:
    """(I + h L)^-1 x = F^-1 (F x / (1 + h lambda)), lambda >= 0 the symbol of L.

    Symmetric and a contraction; means are kept where lambda(0) = 0 (IMEXnet, Algorithm 1).
    """
    return symbol_product(x, resolvent(symbol, h), boundary, backend)


def implicit_gram_conv(
    x: Tensor,
    taps: Tensor,
    scale: float | Tensor,
    boundary: str = "periodic",
    backend: str = "auto",
) -> Tensor:
    """Return (I + scale B^T B)^-1 x for the stencil B of taps (C, kh, kw).

    On a CUDA device kernels make the factors of the taps; elsewhere the symbol does.
    """
    F = transform_of(x, boundary, backend)
    if isinstance(F, PeriodicTriton):
        t = F.gram_factors(taps * scale**0.5)
    else:
        t = factors_of(resolvent(gram_symbol(taps, F.size, boundary), scale), x, F)
    return apply_factors(x, t, F)
