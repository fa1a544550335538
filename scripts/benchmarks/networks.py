"""Time networks side by side: `python scripts/benchmarks/networks.py models=[resnet,imexnet]`.

Prints the time of a training step, forward and backward, over that of the first network, for
images of each of `sides`, and the FLOPs of both. The networks take turns in one process, on
one CPU thread by default, in CPU seconds; a ratio is one of medians. `out=<file>.csv` writes
the table with the spread of each median.
"""

from imex_experiments.process.interrupts import end_at_once

if __name__ == "__main__":
    end_at_once()  # until the imports are done, which takes seconds

from dataclasses import dataclass, field
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from rich.console import Console
from rich.table import Table
from roofline import training_step
from timing import interleaved

from imex_experiments.config.arguments import parse_arguments
from imex_experiments.config.parts import build_network
from imex_experiments.files import write_table
from imex_experiments.installed import CONF
from imex_experiments.networks.cost import count_flops
from imex_experiments.process.command import run_command

RIVALS = ["resnet", "imexnet", "resnet_context", "resnet_dilated"]
RIVALS += ["resnet_large_kernels", "unet"]


@dataclass
class Arguments:
    models: list[str] = field(default_factory=lambda: RIVALS)
    overrides: list[str] = field(default_factory=list)
    sides: list[int] = field(default_factory=lambda: [64, 128])
    batch: int = 8
    channels: int = 1
    classes: int = 4
    rounds: int = 9
    seconds: float = 60.0
    threads: int = 1
    out: str | None = None


def main() -> None:
    args = parse_arguments(Arguments)
    torch.set_num_threads(args.threads)
    rows = [row for side in args.sides for row in measured(args, side)]
    table = Table(title="a training step over that of the first network")
    for name in rows[0]:
        table.add_column(name)
    for row in rows:
        table.add_row(
            *(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values())
        )
    Console().print(table)
    if args.out is not None:
        write_table(Path(args.out), rows)


def measured(args: Arguments, side: int) -> list[dict[str, object]]:
    """Return a row for each network on images of side x side pixels."""
    images = torch.randn(args.batch, args.channels, side, side)
    networks = {}
    for name in args.models:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("train", [f"model={name}", *args.overrides])
        networks[name] = build_network(cfg, args.channels, args.classes)
    jobs = {name: training_step(network, images) for name, network in networks.items()}
    timings = interleaved(jobs, args.rounds, args.seconds, "cpu")
    first = timings[args.models[0]].as_dict()["median"]
    return [
        {
            "side": side,
            "network": name,
            "ratio": timings[name].as_dict()["median"] / first,
            "spread": timings[name].as_dict()["spread"] / first,
            "MFLOP per image": count_flops(network, (args.channels, side, side))[
                "total"
            ]
            / 1e6,
        }
        for name, network in networks.items()
    ]


if __name__ == "__main__":
    run_command(main)
