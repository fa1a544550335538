"""Run the sweeps of a published experiment."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from imex_experiments.config.overrides import hydra_quoted
from imex_experiments.errors import ConfigError
from imex_experiments.process.interrupts import INTERRUPTS
from imex_experiments.process.tied import run_tied
from imex_experiments.results.sources import sweep_words
from imex_experiments.runs.folder import make_private
from imex_experiments.runs.layout import sweep_file


def run_sweep(
    script: Path, words: Sequence[str], seeds: Iterable[int], folder: Path
) -> int:
    """Run or resume a sweep of `script` in `folder`; return its exit code.

    Finished jobs are not repeated. Further seeds join those that are there. ConfigError if
    the folder was made with other overrides, StorageError if another process holds it.
    """
    _require_same_words(folder, words)
    command = [sys.executable, str(script), "-m", *words]
    command.append(f"seed=choice({','.join(map(str, seeds))})")
    command.append(f"hydra.sweep.dir={hydra_quoted(folder)}")
    # no number of the job: it would change with the seeds
    command.append("hydra.sweep.subdir=${hydra.job.override_dirname}")
    if "check=true" in words:
        return run_tied(command)
    make_private(folder, "out")
    with INTERRUPTS.raised():
        return run_tied(command)


def _require_same_words(folder: Path, words: Sequence[str]) -> None:
    if not sweep_file(folder).is_file():
        return
    _, before = sweep_words(folder)
    differing = {w for w in before if not w.startswith("seed=")} ^ set(words)
    if differing:
        raise ConfigError(
            f"{folder}: has runs that were made with other words "
            f"({', '.join(sorted(differing))}); choose another out=<folder>"
        )
