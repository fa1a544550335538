"""The modules that solve.py times, and their jobs."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from imex_experiments.integrators import ForwardEuler, Imex, TimeGrid
from imex_experiments.networks import DynamicBlock
from imex_experiments.terms import DoubleLayer, GramDiffusion, ImplicitConv2d

FUSED = "solve, fused"


class Copy(nn.Module):
    """A copy of all images, the least memory traffic of a solve."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clone()


class Algorithm1(nn.Module):
    """Algorithm 1 of IMEXnet as published.

    The kernel is padded to the size of the image and transformed, and the images of a
    batch are solved one after the other.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.L = GramDiffusion(channels, alpha=10.0, init="laplacian")

    def forward(self, x: Tensor) -> Tensor:
        taps = self.L.taps
        kernel = taps.new_zeros(x.shape[1:])
        kernel[:, : taps.shape[-2], : taps.shape[-1]] = taps
        K = torch.fft.rfft2(kernel.roll((-1, -1), (-2, -1)))
        t = 1 / (1 + self.L.alpha * (K.conj() * K).real)
        solved = [
            torch.fft.irfft2(torch.fft.rfft2(one.float()) * t, s=x.shape[-2:])
            for one in x
        ]
        return torch.stack(solved).to(x.dtype)


def candidates(channels: int) -> dict[str, nn.Module]:
    """Return the modules that are timed, by name; the first is the reference."""
    grid = TimeGrid.uniform(1.0, 1)
    operator = partial(GramDiffusion, alpha=10.0, init="laplacian")
    depthwise = partial(nn.Conv2d, channels, channels, groups=channels, bias=False)
    modules: dict[str, nn.Module] = {
        "ResNet block": DynamicBlock(
            channels, grid, ForwardEuler(), DoubleLayer, operator
        ),
        "IMEX block": DynamicBlock(channels, grid, Imex(), DoubleLayer, operator),
        "solve": ImplicitConv2d(channels, alpha=10.0),
        "solve, fft": ImplicitConv2d(channels, alpha=10.0, backend="fft"),
        "solve, gemm": ImplicitConv2d(channels, alpha=10.0, backend="gemm"),
        **fused_solve(channels),
        "Algorithm 1": Algorithm1(channels),
        "copy": Copy(),
        "depthwise 3x3": depthwise(kernel_size=3, padding=1),
        "depthwise 31x31": depthwise(kernel_size=31, padding=15),
    }
    try:
        from neuralop.layers.spectral_convolution import SpectralConv
    except ImportError:
        return modules
    modules["spectral convolution"] = SpectralConv(channels, channels, (32, 32))
    return modules


def fused_solve(channels: int) -> dict[str, nn.Module]:
    """Return the solve by fused kernels, or nothing if they are not available here."""
    try:
        return {FUSED: ImplicitConv2d(channels, alpha=10.0, backend="fused")}
    except ValueError:
        return {}


def backends(boundary: str) -> list[str]:
    """Return the backends that are available for a boundary."""
    fused = boundary == "periodic" and fused_solve(1)
    return ["fused", "fft", "gemm"] if fused else ["fft", "gemm"]


def relative_errors(modules: Mapping[str, nn.Module], x: Tensor) -> dict[str, float]:
    """Return the error of every solve relative to a solve in float64 by FFT."""
    solves = {k: m for k, m in modules.items() if isinstance(m, ImplicitConv2d)}
    few = x[:2]
    errors = {}
    for name, layer in solves.items():
        exact = ImplicitConv2d(x.shape[1], alpha=10.0, backend="fft").to(few.device)
        exact.load_state_dict(layer.state_dict())
        with torch.no_grad():
            y = exact.double()(few.double())
            errors[name] = float((layer(few).double() - y).norm() / y.norm())
    return errors


def work(module: nn.Module, x: Tensor, backward: bool) -> Callable[[], object]:
    """Return a job: a forward pass, with `backward` also a backward pass."""
    half = torch.autocast(
        x.device.type, torch.bfloat16, enabled=x.dtype == torch.bfloat16
    )
    if not backward:

        def forward() -> Tensor:
            with torch.no_grad(), half:
                return module(x)

        return forward
    leaf = x.clone().requires_grad_()
    wanted = [leaf, *module.parameters()]

    def both() -> object:
        with half:
            y = module(leaf)
        return torch.autograd.grad(y, wanted, grad_outputs=x)

    return both
