"""Measure the cost of an implicit step, compared with the layers around it.

`python scripts/benchmarks/solve.py out=<file>.json` times in one process, in turns:

- a ResNet block, an IMEX block, the solve alone, the published Algorithm 1, two depthwise
  convolutions and, if `neuralop` is installed, its spectral convolution. For the solves, the
  relative errors and the speed relative to a copy are reported, symbol included;
- the solve over the side of the image;
- the backends of every boundary, at the sizes between which `auto` decides;
- epochs of the main job and of its explicit twin, with the share of time for loading data
  (`epochs=0` leaves them out).

It prints ratios, writes the JSON and a picture beside it. `device=cuda` replays CUDA graphs
and reads the clock of the device. `dtype=bfloat16` uses such images under autocast.
`compile=true` compiles the blocks and the fused solve.
"""

from imex_experiments.process.interrupts import end_at_once

if __name__ == "__main__":
    end_at_once()  # until the imports are done, which takes seconds

import csv
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from omegaconf import MISSING
from rich.console import Console
from rich.table import Table
from timing import Timing, interleaved, peak_bytes
from torch import Tensor, nn

from imex_experiments.config.arguments import parse_arguments
from imex_experiments.config.build import build
from imex_experiments.errors import ConfigError, nearest
from imex_experiments.files import write_json
from imex_experiments.integrators import ForwardEuler, Imex, TimeGrid
from imex_experiments.networks import DynamicBlock
from imex_experiments.operators.boundary import BOUNDARIES
from imex_experiments.plots.costs import costs_figure
from imex_experiments.process.command import run_command
from imex_experiments.terms import DoubleLayer, GramDiffusion, ImplicitConv2d

ROOT = Path(__file__).parents[2]
GROWTH_CHANNELS = 8
FUSED = "solve, fused"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass
class Arguments:
    out: str = MISSING
    device: str = "cpu"
    dtype: str = "float32"  # or bfloat16
    compile: bool = False
    clock: str = "wall"  # or cpu: seconds computed, for a machine with other work
    shapes: list[list[int]] = field(
        default_factory=lambda: [
            [8, 16, 64, 64],
            [8, 64, 64, 64],
            [8, 128, 64, 64],
            [8, 256, 64, 64],
            [1, 32, 240, 320],
            [1, 64, 480, 640],
        ]
    )
    sides: list[int] = field(default_factory=lambda: [32, 64, 128, 256, 512])
    between: list[int] = field(
        default_factory=lambda: [16, 32, 64, 67, 128, 131, 192, 256, 257]
    )
    without: list[str] = field(default_factory=list)  # names of modules not to time
    rounds: int = 9
    seconds: float = 12.0  # at most, per shape and direction
    epochs: int = 5
    pixels: int = 2**19  # of the solves of all backends


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


def time_shape(shape: list[int], args: Arguments) -> dict[str, Any]:
    """Time all modules on images of one shape (B, C, H, W)."""
    dtype = DTYPES[args.dtype]
    x = torch.randn(*shape, device=args.device, dtype=dtype)
    modules = {
        name: module.to(args.device)
        for name, module in candidates(shape[1]).items()
        if name not in args.without
    }
    found: dict[str, Any] = {"shape": shape, "errors": relative_errors(modules, x)}
    for name, module in modules.items():
        if args.compile and (isinstance(module, DynamicBlock) or name == FUSED):
            module.compile()
    for direction in ("forward", "forward and backward"):
        backward = direction != "forward"
        jobs = {name: work(module, x, backward) for name, module in modules.items()}
        timings = interleaved(jobs, args.rounds, args.seconds, clock_of(args))
        found[direction] = {name: t.as_dict() for name, t in timings.items()}
        if not backward and "copy" in modules:
            copied = found[direction]["copy"]["median"]
            for name in found["errors"]:
                share = copied / found[direction][name]["median"]
                found[direction][name]["share_of_copy"] = share
        if backward:
            for name, job in jobs.items():
                found[direction][name]["peak_bytes"] = peak_bytes(job, args.device)
    return found


def time_growth(args: Arguments) -> dict[str, list[dict[str, float]]]:
    """Time the solve, forward and backward, on (1, GROWTH_CHANNELS, n, n), per backend."""
    jobs: dict[str, Callable[[], object]] = {}
    for side in args.sides:
        x = torch.randn(1, GROWTH_CHANNELS, side, side, device=args.device)
        for backend in backends("periodic"):
            layer = ImplicitConv2d(GROWTH_CHANNELS, alpha=10.0, backend=backend)
            jobs[f"{backend} {side}"] = work(layer.to(args.device), x, backward=True)
    timings = interleaved(jobs, args.rounds, args.seconds, clock_of(args))
    return {
        backend: [
            {"side": side, **timings[f"{backend} {side}"].as_dict()}
            for side in args.sides
        ]
        for backend in backends("periodic")
    }


def time_backends(args: Arguments) -> list[dict[str, Any]]:
    """Time a solve, forward, of about `pixels` in (2, C, n, n), per boundary and n."""
    rows = []
    for boundary in BOUNDARIES:
        for side in args.between:
            channels = max(1, args.pixels // (2 * side * side))
            x = torch.randn(2, channels, side, side, device=args.device)
            x = x.to(DTYPES[args.dtype])
            jobs = {}
            for backend in backends(boundary):
                layer = ImplicitConv2d(
                    channels, alpha=10.0, boundary=boundary, backend=backend
                )
                jobs[backend] = work(layer.to(args.device).eval(), x, backward=False)
            timings = interleaved(jobs, args.rounds, args.seconds, clock_of(args))
            found = {backend: t.as_dict() for backend, t in timings.items()}
            rows.append({"boundary": boundary, "side": side, **found})
    return rows


def time_data() -> float:
    """Return the seconds for loading all training images of the main job once."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        data = build(compose("train").data, "data")
    data.setup()
    images = data.train_dataloader()
    begun = time.perf_counter()
    for _ in images:
        pass
    return time.perf_counter() - begun


def time_epochs(epochs: int) -> dict[str, Any]:
    """Time epochs of the main job and of its explicit twin, validation included."""
    seconds: dict[str, list[float]] = {"resnet": [], "imexnet": []}
    for _ in range(2):  # in turns, so that a slow minute hits both
        for model in seconds:
            with tempfile.TemporaryDirectory() as folder:
                overrides = [
                    f"model={model}",
                    "data=qtips",
                    f"trainer.max_epochs={epochs}",
                ]
                command = [sys.executable, str(ROOT / "train.py"), *overrides]
                done = subprocess.run(
                    command, cwd=folder, capture_output=True, text=True
                )
                if done.returncode != 0:
                    raise ConfigError(f"epochs={epochs}: {done.stderr.strip()}")
                (path,) = Path(folder).rglob("metrics.csv")
                with path.open(newline="") as file:
                    at = [float(row["seconds"]) for row in csv.DictReader(file)]
            seconds[model] += list(np.diff(at))
    return {model: Timing(tuple(s)).as_dict() for model, s in seconds.items()}


def clock_of(args: Arguments) -> Any:
    return "cuda" if args.device == "cuda" else args.clock


def machine(device: str) -> dict[str, Any]:
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text().splitlines()
        names = [line.split(":")[1].strip() for line in lines if "model name" in line]
        name = names[0] if names else name
    return {
        "cpu": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "torch": torch.__version__,
    }


def show(results: Mapping[str, Any]) -> None:
    for direction in ("forward", "forward and backward"):
        rows = results["shapes"]
        table = Table(title=f"{direction}: milliseconds (ratio to the ResNet block)")
        table.add_column("")
        for row in rows:
            table.add_column("x".join(map(str, row["shape"])), justify="right")
        for name in rows[0][direction]:
            cells = []
            for row in rows:
                timing, base = row[direction][name], row[direction]["ResNet block"]
                ratio = timing["median"] / base["median"]
                cells.append(
                    f"{1e3 * timing['median']:.1f} ± {1e3 * timing['spread']:.1f} "
                    f"({ratio:.2f})"
                )
            table.add_row(name, *cells)
        Console().print(table)
    for row in rows:
        for name, error in row["errors"].items():
            share = row["forward"][name].get("share_of_copy", math.nan)
            Console().print(
                f"{'x'.join(map(str, row['shape']))} {name}: relative error {error:.1e}, "
                f"{100 * share:.0f} % of the speed of a copy"
            )
    sizes = Table(title="a solve, forward: milliseconds")
    sizes.add_column("side")
    for boundary in BOUNDARIES:
        sizes.add_column(
            f"{boundary}: {' | '.join(backends(boundary))}", justify="right"
        )
    for side in sorted({row["side"] for row in results["backends"]}):
        cells = [
            " | ".join(
                f"{1e3 * row[b]['median']:.1f}" for b in backends(row["boundary"])
            )
            for row in results["backends"]
            if row["side"] == side
        ]
        sizes.add_row(str(side), *cells)
    Console().print(sizes)
    epochs = results.get("epochs", {})
    for model, t in epochs.items():
        Console().print(f"epoch of {model}: {t['median']:.2f} ± {t['spread']:.2f} s")
    if epochs:
        ratio = epochs["imexnet"]["median"] / epochs["resnet"]["median"]
        share = results["data_seconds"] / epochs["imexnet"]["median"]
        Console().print(
            f"imexnet / resnet: {ratio:.2f}; data: {100 * share:.2f} % of an epoch"
        )


def main() -> None:
    args = parse_arguments(Arguments)
    if args.device not in ("cpu", "cuda"):
        raise ConfigError(f"device={args.device}: expected cpu or cuda")
    if args.clock not in ("wall", "cpu"):
        raise ConfigError(f"clock={args.clock}: expected wall or cpu")
    if args.dtype not in DTYPES:
        raise ConfigError(f"dtype={args.dtype}: expected {' or '.join(DTYPES)}")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda: there is no CUDA device")
    for name in args.without:
        known = candidates(1)
        if name not in known or name == "ResNet block":
            raise ConfigError(f"without={name}: {nearest(name, known)}")
    torch.manual_seed(0)
    results: dict[str, Any] = {
        "machine": {**machine(args.device), "clock": clock_of(args)},
        "shapes": [time_shape(shape, args) for shape in args.shapes],
        "growth": time_growth(args),
        "backends": time_backends(args),
    }
    if args.epochs > 1:
        results["epochs"] = time_epochs(args.epochs)
        results["data_seconds"] = time_data()
    show(results)
    out = Path(args.out)
    write_json(out, results)
    costs_figure(results["shapes"], results["growth"]).savefig(
        out.with_suffix(".png"), dpi=150
    )


if __name__ == "__main__":
    run_command(main)
