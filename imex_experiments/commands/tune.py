"""Search for the best settings: `python scripts/tune.py 'model.alpha=interval(1,100)'`.

Arguments are overrides of a training. Optuna's TPE searches over overrides with choice(...),
range(...) or interval(...) in `trials=20` runs, in outputs/tune/<study>/<number>, and
results.csv there has all of them. A command with the same `study=<name>` joins the study:
later, or at the same time, also on another machine. No point is run twice, and the run of a
command that was killed is resumed by another one. `trials` counts those of the study;
`trials=40` adds runs to it. The points of a single command are equal to those of one that was
stopped in between. `--config-dir=<folder>` has configuration files of your own.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from imex_experiments.config.arguments import split_arguments, split_config_dir
from imex_experiments.errors import ConfigError, SweepError
from imex_experiments.installed import TRAIN, install_line


@dataclass
class Arguments:
    study: str = "study"
    trials: int = 20


def main() -> None:
    args, others = split_arguments(Arguments)
    config_dir, overrides = split_config_dir(others)
    try:
        from imex_experiments.sweeps.search import TrialState, tune
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        raise ConfigError(f"{package} is missing: {install_line('tune')}") from error
    if args.trials < 1:
        raise ConfigError(f"trials must be >= 1, got {args.trials}")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    folder = Path("outputs/tune") / args.study
    study = tune(TRAIN, folder, overrides, args.trials, config_dir).optuna
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
