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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from omegaconf import MISSING
from rich.console import Console
from rich.table import Table
from solve_jobs import FUSED, backends, candidates, relative_errors, work
from timing import Timing, interleaved, peak_bytes

from imex_experiments.config.arguments import parse_arguments
from imex_experiments.config.build import build
from imex_experiments.errors import ConfigError, nearest
from imex_experiments.files import write_json
from imex_experiments.networks import DynamicBlock
from imex_experiments.operators.boundary import BOUNDARIES
from imex_experiments.plots.costs import costs_figure
from imex_experiments.process.command import run_command
from imex_experiments.terms import ImplicitConv2d

ROOT = Path(__file__).parents[2]
GROWTH_CHANNELS = 8
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass
class Arguments:
    out: str = MISSING
    device: str = "cpu"
    dtype: str = "float32"  # or bfloat16
    compile: bool = False
    clock: str = "wall"  # or cpu: CPU seconds, for a machine with other work
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
    """Print all results as tables and ratios."""
    for direction in ("forward", "forward and backward"):
        Console().print(shapes_table(results["shapes"], direction))
    for row in results["shapes"]:
        for name, error in row["errors"].items():
            share = row["forward"][name].get("share_of_copy", math.nan)
            Console().print(
                f"{'x'.join(map(str, row['shape']))} {name}: relative error {error:.1e}, "
                f"{100 * share:.0f} % of the speed of a copy"
            )
    Console().print(backends_table(results["backends"]))
    epochs = results.get("epochs", {})
    for model, t in epochs.items():
        Console().print(f"epoch of {model}: {t['median']:.2f} ± {t['spread']:.2f} s")
    if epochs:
        ratio = epochs["imexnet"]["median"] / epochs["resnet"]["median"]
        share = results["data_seconds"] / epochs["imexnet"]["median"]
        Console().print(
            f"imexnet / resnet: {ratio:.2f}; data: {100 * share:.2f} % of an epoch"
        )


def shapes_table(rows: Sequence[Mapping[str, Any]], direction: str) -> Table:
    """Return a table of all modules (rows) over the shapes of images (columns)."""
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
    return table


def backends_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return a table of the backends of each boundary over the side of the image."""
    table = Table(title="a solve, forward: milliseconds")
    table.add_column("side")
    for boundary in BOUNDARIES:
        title = f"{boundary}: {' | '.join(backends(boundary))}"
        table.add_column(title, justify="right")
    for side in sorted({row["side"] for row in rows}):
        cells = [
            " | ".join(
                f"{1e3 * row[b]['median']:.1f}" for b in backends(row["boundary"])
            )
            for row in rows
            if row["side"] == side
        ]
        table.add_row(str(side), *cells)
    return table


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
