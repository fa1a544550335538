"""Evaluate a trained run again: `python scripts/evaluate.py run=outputs/.../<run>`.

Prints validation and test metrics of the kept checkpoint (`checkpoint=last` for the final
one) on the data of the run, and writes them to `out=<file>.json` if it is given. The run
folder is not changed. A run with classes of your own needs `allow=[<package>]` again.
"""

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from imex_experiments.config.arguments import parse_arguments
from imex_experiments.files import write_json
from imex_experiments.runs.load import load_config, load_data, load_run
from imex_experiments.tasks import Task
from imex_experiments.training.evaluation import evaluate
from imex_experiments.training.report import show_metrics


@dataclass
class Arguments:
    run: str = MISSING
    checkpoint: str = "best"
    out: str | None = None
    allow: list[str] = field(default_factory=list)


def main() -> None:
    args = parse_arguments(Arguments)
    task: Task = load_run(args.run, args.checkpoint, allow=args.allow)
    data, cfg = load_data(args.run, args.allow), load_config(args.run, args.allow)
    metrics = evaluate(task, data, cfg.trainer)
    show_metrics(metrics, title=f"{args.checkpoint} checkpoint")
    if args.out is not None:
        write_json(Path(args.out), metrics)
