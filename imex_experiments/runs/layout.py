"""Name the files and folders of a run folder."""

from collections.abc import Sequence
from pathlib import Path
from shlex import join

from imex_experiments.config.overrides import hydra_quoted
from imex_experiments.installed import command_line

HYDRA = Path(".hydra")
CONFIG = Path(".hydra/config.yaml")
CHOICES = Path(".hydra/hydra.yaml")
OVERRIDES = Path(".hydra/overrides.yaml")
BEST = Path("checkpoints/best.ckpt")
LAST = Path("checkpoints/last.ckpt")
PREVIOUS = Path("checkpoints/previous.ckpt")
"""The last.ckpt before the present one."""

METRICS = Path("metrics.json")
HISTORY = Path("metrics.csv")
STATUS = Path("status.json")
LOCK = Path(".lock")
FIGURES = Path("figures")
TENSORBOARD = Path("tensorboard")
CSV = Path("csv")
LOGS = (TENSORBOARD, CSV, Path("wandb"))
"""Folders of loggers."""

CONSOLE = Path("console.log")
"""Output of a job of a sweep."""

SWEEP = Path("sweep.yaml")
"""The overrides of a sweep, complete or not there."""

MULTIRUN = Path("multirun.yaml")
"""Hydra's copy of them, written in place. Older sweeps have nothing else."""


def sweep_file(folder: Path) -> Path:
    """Return the file with the overrides of a sweep; it is missing if there is none."""
    own, hydras = folder / SWEEP, folder / MULTIRUN
    return hydras if hydras.is_file() and not own.is_file() else own


def resume_command(run: Path, more: Sequence[str] = ()) -> str:
    """Return the shell command that resumes a run, with more arguments."""
    return f"{command_line('train')} {join([f'resume={hydra_quoted(run)}', *more])}"
