"""Search for the best settings: `python scripts/tune.py 'model.alpha=interval(1,100)'`.

Arguments are overrides of a training. Optuna's TPE searches over overrides with choice(...),
range(...) or interval(...) in `trials=20` runs, in outputs/tune/<study>/<number>. A command
with the same `study=<name>` continues the study, and `trials=40` adds runs to it. The points
are equal to those of a study that was never stopped.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from imex_experiments.config.arguments import split_arguments
from imex_experiments.errors import ConfigError, SweepError
from imex_experiments.installed import TRAIN, install_line


@dataclass
class Arguments:
    study: str = "study"
    trials: int = 20


def main() -> None:
    args, overrides = split_arguments(Arguments)
    try:
        from imex_experiments.sweeps.search import TrialState, tune
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is missing: {install_line('tune')}") from error
    if args.trials < 1:
        raise ConfigError(f"trials must be >= 1, got {args.trials}")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    folder = Path("outputs/tune") / args.study
    study = tune(TRAIN, folder, overrides, args.trials)
    scored = [t for t in study.trials if t.state is TrialState.COMPLETE]
    if not scored:
        raise SweepError(f"{folder}: none of {len(study.trials)} trials has a score")
    table = Table(title=f"{folder}: best of {len(study.trials)} trials")
    table.add_column("run")
    table.add_column("score", justify="right")
    table.add_column("settings")
    sign = -1 if study.direction.name == "MAXIMIZE" else 1
    for trial in sorted(scored, key=lambda t: sign * (t.value or 0))[:10]:
        settings = "  ".join(f"{key}={value}" for key, value in trial.params.items())
        table.add_row(str(folder / str(trial.number)), f"{trial.value:.4f}", settings)
    Console().print(table)
