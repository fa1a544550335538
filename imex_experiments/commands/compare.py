"""Compare the jobs of sweeps and runs: `python scripts/compare.py <sweeps or runs>`.

Writes results.csv, summary.md and pictures to `out=<folder>`. The default is the folder of the
sweep if one sweep is given, else ./comparison. `metric=<name in metrics.json>` is the metric
to compare, by default the test score of the monitored metric. Paths may also be given as
`runs=[<path>,...]`.
"""

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from imex_experiments.config.arguments import parse_arguments
from imex_experiments.errors import ConfigError
from imex_experiments.results.report import report
from imex_experiments.results.sources import is_sweep
from imex_experiments.results.table import runs_table


@dataclass
class Arguments:
    runs: list[str] = MISSING
    out: str | None = None
    metric: str | None = None
    allow: list[str] = field(default_factory=list)


def main() -> None:
    args = parse_arguments(Arguments, plain="runs")
    if not args.runs:
        raise ConfigError("runs: give one sweep or run, or several")
    own = len(args.runs) == 1 and is_sweep(Path(args.runs[0]))
    out = Path(args.out or (args.runs[0] if own else "comparison"))
    report(runs_table(*args.runs, allow=args.allow), args.runs, out, args.metric)
