"""Name the files and folders of a run folder."""

from pathlib import Path
from shlex import quote

from imex_experiments.config.overrides import hydra_quoted

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
CONSOLE = Path("console.log")
"""Output of a job of a sweep."""

MULTIRUN = Path("multirun.yaml")
"""Written by Hydra into the folder of a sweep."""


def resume_command(run: Path) -> str:
    """Return the shell command that resumes a run."""
    return f"python train.py {quote(f'resume={hydra_quoted(run)}')}"
