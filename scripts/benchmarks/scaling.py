"""Predict the scaling of a training step: `python scripts/benchmarks/scaling.py out=<folder>`.

Measures blocks over side, channels and batch on one CPU thread, in CPU seconds, and compares
them with a roofline, whose rates are measured on a matrix product, an FFT and a copy. Then
extrapolates blocks and the published network to 2048 x 2048 pixels and many devices, with the
roofline of another device: `name`, `products`, `vector`, `bandwidth`, `links`, by default from
the data sheet of an H200, and an assumed `launch`. Writes CSV files and figures.
"""

from imex_experiments.process.interrupts import end_at_once

if __name__ == "__main__":
    end_at_once()  # until the imports are done, which takes seconds

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from omegaconf import MISSING
from rich.console import Console
from rich.table import Table
from roofline import (
    KINDS,
    Machine,
    count_operations,
    exchange_seconds,
    kept_bytes,
    training_step,
)
from timing import interleaved
from torch import nn

from imex_experiments.config.arguments import parse_arguments
from imex_experiments.config.build import build
from imex_experiments.files import write_table
from imex_experiments.installed import CONF
from imex_experiments.integrators import ForwardEuler, Imex, TimeGrid
from imex_experiments.networks import DynamicBlock
from imex_experiments.plots.scaling import Line, Panel, scaling_figure
from imex_experiments.process.command import run_command
from imex_experiments.terms import DoubleLayer, GramDiffusion, ImplicitConv2d

BASE = {"side": 64, "channels": 32, "batch": 4}
"""Sizes of the measured blocks; one of them is varied at a time."""


@dataclass
class Arguments:
    out: str = MISSING
    sides: list[int] = field(default_factory=lambda: [32, 64, 128, 256])
    channels: list[int] = field(default_factory=lambda: [8, 16, 32, 64, 128])
    batches: list[int] = field(default_factory=lambda: [1, 2, 4, 8, 16])
    rounds: int = 5
    seconds: float = 60.0
    name: str = "H200, data sheet"
    products: float = 989e12  # bfloat16, dense
    vector: float = 67e12  # float32
    bandwidth: float = 4.8e12
    launch: float = 2e-6
    links: list[float] = field(default_factory=lambda: [450e9, 50e9, 1.25e9])
    far_sides: list[int] = field(
        default_factory=lambda: [64, 128, 256, 512, 1024, 2048]
    )
    far_channels: list[int] = field(default_factory=lambda: [16, 32, 64, 128, 256, 512])
    devices: list[int] = field(default_factory=lambda: [2, 8, 64, 512])


def blocks(channels: int) -> dict[str, nn.Module]:
    """Return the modules that are measured, by name."""
    grid = TimeGrid.uniform(1.0, 1)
    operator = partial(GramDiffusion, alpha=10.0, init="laplacian")
    return {
        "ResNet block": DynamicBlock(
            channels, grid, ForwardEuler(), DoubleLayer, operator
        ),
        "IMEX block": DynamicBlock(channels, grid, Imex(), DoubleLayer, operator),
        "solve": ImplicitConv2d(channels, alpha=10.0),
    }


def published_network() -> nn.Module:
    """Return the network of Table 1: widths 64, 128, 256, three symmetric layers each."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", ["experiment=qtips_table1"])
    return build(config.model, "model", in_channels=1, out_channels=4)


def this_machine(args: Arguments) -> Machine:
    """Measure the rates of one thread of this machine.

    The product of 1024 x 1024 matrices and FFTs of 64 x 64 stay in the cache; the copy of
    128 MB does not. Sums of one number measure the launch.
    """
    a, planes = torch.randn(1024, 1024), torch.randn(16, 64, 64, dtype=torch.complex64)
    long, one = torch.randn(2**25), torch.zeros(1)
    jobs = {
        "product": lambda: a @ a,
        "fft": lambda: [torch.fft.fft2(planes) for _ in range(10)],
        "copy": long.clone,
        "launch": lambda: [one + 1 for _ in range(1000)],
    }
    counted = {name: count_operations(job) for name, job in jobs.items()}
    found = interleaved(jobs, args.rounds, args.seconds, "cpu")
    took = {name: timing.as_dict()["median"] for name, timing in found.items()}

    def rate(name: str, of: str) -> float:
        return sum(getattr(o, of) for o in counted[name]) / took[name]

    return Machine(
        "this CPU, one thread",
        products=rate("product", "flops"),
        vector=rate("fft", "flops"),
        bandwidth=rate("copy", "bytes"),
        launch=took["launch"] / 1000,
    )


def measure(args: Arguments, machine: Machine) -> list[dict[str, Any]]:
    """Measure a training step of every block over side, channels and batch."""
    varied = {"side": args.sides, "channels": args.channels, "batch": args.batches}
    points = {
        tuple({**BASE, axis: value}.values()): None
        for axis, values in varied.items()
        for value in values
    }
    jobs = {}
    for side, channels, batch in points:
        x = torch.randn(batch, channels, side, side)
        for name, block in blocks(channels).items():
            jobs[name, side, channels, batch] = training_step(block, x)
    predicted = {
        key: sum(machine.predict(count_operations(job)).values())
        for key, job in jobs.items()
    }
    named = {"/".join(map(str, key)): job for key, job in jobs.items()}
    found = interleaved(named, args.rounds, args.seconds, "cpu")
    rows = []
    for key, seconds in predicted.items():
        timing = found["/".join(map(str, key))].as_dict()
        row = dict(zip(("block", "side", "channels", "batch"), key, strict=True))
        row |= {
            "measured [s]": timing["median"],
            "half quartiles [s]": timing["spread"],
        }
        row |= {"predicted [s]": seconds, "ratio": timing["median"] / seconds}
        rows.append(row)
    return rows


def measured_panels(rows: Sequence[Mapping[str, Any]]) -> list[Panel]:
    labels = {
        "side": "side of the image [pixels]",
        "channels": "channels",
        "batch": "images per batch",
    }
    panels = []
    for axis, label in labels.items():
        lines = {}
        for name in blocks(1):
            own = [
                row
                for row in rows
                if row["block"] == name
                and all(row[k] == v for k, v in BASE.items() if k != axis)
            ]
            own.sort(key=lambda row: row[axis])
            lines[name] = Line(
                [row[axis] for row in own],
                [1e3 * row["predicted [s]"] for row in own],
                [1e3 * row["measured [s]"] for row in own],
            )
        fixed = ", ".join(f"{k} {v}" for k, v in BASE.items() if k != axis)
        panels.append(Panel(fixed, label, "forward and backward [ms]", lines))
    return panels


def ghost_step(module: nn.Module, *shape: int) -> Callable[[], object]:
    """Return a training step on the meta device in bfloat16, with the solve in float32."""
    x = torch.empty(*shape, device="meta", dtype=torch.bfloat16)
    return training_step(module.to("meta", torch.bfloat16), x)


def extrapolate(args: Arguments, machine: Machine) -> dict[str, list[dict[str, Any]]]:
    """Predict the published network over the side, an IMEX block over channels, and devices.

    "solve, each plane once" is a solve that only reads and writes images and gradients in
    bfloat16 once each.
    """

    def on_paper(step: Callable[[], object]) -> dict[str, float]:
        return machine.predict(count_operations(step))

    network = published_network()
    weights = sum(p.numel() for p in network.parameters())
    over_side = []
    for side in args.far_sides:
        step = ghost_step(network, 1, 1, side, side)
        seconds = on_paper(step)
        over_side.append(
            {"side": side, **seconds, "step": sum(seconds.values())}
            | {"kept [bytes]": kept_bytes(step)}
        )
    large = max(args.far_sides)
    over_channels = []
    for c in args.far_channels:
        steps = {
            name: ghost_step(b, 1, c, large, large) for name, b in blocks(c).items()
        }
        totals = {name: sum(on_paper(step).values()) for name, step in steps.items()}
        once = 4 * 2 * c * large**2 / machine.bandwidth
        over_channels.append(
            {"channels": c, **on_paper(steps["IMEX block"])}
            | {"ResNet block": totals["ResNet block"], "solve": totals["solve"]}
            | {"solve, each plane once": once}
        )
    over_devices = [
        {"devices": n}
        | {
            f"exchange at {link / 1e9:g} GB/s": exchange_seconds(weights, n, link)
            for link in args.links
        }
        for n in args.devices
    ]
    return {"side": over_side, "channels": over_channels, "devices": over_devices}


def far_panels(
    found: Mapping[str, Sequence[Mapping[str, Any]]], name: str
) -> list[Panel]:
    def over(axis: str, columns: Iterable[str]) -> dict[str, Line]:
        rows = found[axis]
        x = [row[axis] for row in rows]
        return {name: Line(x, [1e3 * row[name] for row in rows]) for name in columns}

    sides = [row["side"] for row in found["side"]]
    exchange = found["devices"][-1]
    devices = exchange["devices"]
    parallel = over("side", ["step"]) | {
        key: Line(sides, [1e3 * value] * len(sides))
        for key, value in exchange.items()
        if key != "devices"
    }
    images, step = "side of the image [pixels]", f"{name}: training step [ms]"
    kinds = over("side", KINDS)
    solve = over("channels", [*KINDS, "solve", "solve, each plane once"])
    return [
        Panel("published network, one image", images, step, kinds),
        Panel(f"IMEX block, one image of {max(sides)}²", "channels", step, solve),
        Panel(f"one image on each of {devices} devices", images, step, parallel),
    ]


def show(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    table = Table(title=title)
    for column in rows[0]:
        table.add_column(column, justify="right")
    for row in rows:
        cells = (f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values())
        table.add_row(*cells)
    Console().print(table)


def main() -> None:
    args = parse_arguments(Arguments)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    here = this_machine(args)
    rates = (args.products, args.vector, args.bandwidth, args.launch)
    there = Machine(args.name, *rates)
    measured = measure(args, here)
    found = extrapolate(args, there)
    tables = {
        "machines": [vars(here), vars(there)],
        "measured": measured,
        **{f"over_{axis}": rows for axis, rows in found.items()},
    }
    for name, rows in tables.items():
        show(name, rows)
        write_table(out / f"scaling_{name}.csv", rows)
    figures = {
        "scaling_measured": measured_panels(measured),
        "scaling_extrapolated": far_panels(found, args.name),
    }
    for name, panels in figures.items():
        scaling_figure(panels).savefig(out / f"{name}.png", dpi=150)


if __name__ == "__main__":
    run_command(main)
