"""Draw metrics of several runs over the epochs (IMEXnet, Fig. 5).

`python scripts/plot_convergence.py runs=[<run>,<run>] out=convergence.png` reads each run's
metrics.csv, draws `metrics=[train/loss,val/loss]` with one colour per model, and writes the
numbers to a CSV beside the picture.
"""

import csv
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from omegaconf import MISSING

from imex_experiments.config.arguments import parse_arguments
from imex_experiments.errors import ConfigError, nearest
from imex_experiments.plots.curves import Curve, convergence_figure
from imex_experiments.runs.load import read_history
from imex_experiments.runs.status import read_status


@dataclass
class Arguments:
    runs: list[str] = MISSING
    out: str = MISSING
    metrics: list[str] = field(default_factory=lambda: ["train/loss", "val/loss"])
    unit: str = ""


def main() -> None:
    args = parse_arguments(Arguments)
    panels: dict[str, dict[str, list[Curve]]] = {
        metric: defaultdict(list) for metric in args.metrics
    }
    table: list[dict[str, object]] = []
    for run in args.runs:
        rows = read_history(run)
        model = read_status(Path(run)).get("model", run)
        epochs = np.array([float(row["epoch"]) for row in rows])
        for metric in args.metrics:
            if metric not in rows[0]:
                raise ConfigError(
                    f"metrics: {run} has no {metric}, {nearest(metric, rows[0])}"
                )
            values = np.array([float(row[metric]) for row in rows])
            panels[metric][model].append((epochs, values))
        table += [
            {"run": run, "model": model, "epoch": row["epoch"]}
            | {metric: row[metric] for metric in args.metrics}
            for row in rows
        ]
    if not table:
        raise ConfigError("runs: give one or more, runs=[<run>,<run>]")
    out = Path(args.out)
    convergence_figure(panels, args.unit).savefig(out, dpi=150)
    with out.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(table[0]))
        writer.writeheader()
        writer.writerows(table)
