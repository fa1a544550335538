"""Turn the settings of conf/hydra/launcher/slurm.yaml into options and script of sbatch."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from imex_experiments.errors import ConfigError
from imex_experiments.installed import INSTALLED, PACKAGE

NAMES = {"name": "job-name", "timeout_min": "time", "mem_gb": "mem"}
"""Settings whose options of sbatch have other names."""

OURS = {"_target_", "setup", "signal_delay_s", "max_num_timeout", "array_parallelism"}
"""Settings that are no options of sbatch by themselves."""


def options_of(launcher: DictConfig) -> list[str]:
    """Return the options of sbatch for the settings. ConfigError for a wrong number."""
    settings: Any = OmegaConf.to_container(launcher, resolve=True)
    for key, least in {"max_num_timeout": 0, "array_parallelism": 1}.items():
        if settings[key] < least:
            raise ConfigError(
                f"hydra.launcher.{key}={settings[key]}: expected {least} or more"
            )
    delay, minutes = settings["signal_delay_s"], settings["timeout_min"]
    if delay >= 60 * minutes:
        raise ConfigError(
            f"hydra.launcher.signal_delay_s={delay}: jobs would be told of their time "
            f"limit at their start; give less than timeout_min={minutes}"
        )
    if settings["mem_gb"] is not None:
        settings["mem_gb"] = f"{megabytes(launcher)}M"
    more = settings.pop("additional_parameters")
    given = {NAMES.get(key, key): settings[key] for key in settings if key not in OURS}
    options = [_option(k, v) for k, v in {**given, **more}.items() if v is not None]
    same = ("--nodes=1", "--ntasks=1", "--requeue", "--open-mode=append")
    return [*same, f"--signal=B:USR2@{delay}", *options]


def _option(key: str, value: Any) -> str:
    name = f"--{key.replace('_', '-')}"
    return name if value is True else f"{name}={value}"


def megabytes(launcher: DictConfig) -> int:
    """Return the memory of a job in megabytes of SLURM, which are MiB; 0 without a limit."""
    return round(1024 * (launcher.mem_gb or 0))


def batch_script(launcher: DictConfig, jobs: Mapping[int, Sequence[str]]) -> str:
    """Return the batch script of an array: it becomes the process of one of the jobs.

    That process alone gets the signal before the time limit, and passes it on to its child.
    """
    program = [sys.executable, "-m", "imex_experiments.sweeps.slurm.job"]
    limit = str(launcher.max_num_timeout)
    root = shlex.quote(str(PACKAGE.parent))
    path = f"export PYTHONPATH={root}${{PYTHONPATH:+:$PYTHONPATH}}"
    cases = [f"{n}) set -- {shlex.join(words)} ;;" for n, words in jobs.items()]
    lines = [
        "#!/bin/bash",
        *(launcher.setup or ()),
        *([] if INSTALLED else [path]),
        'case "$SLURM_ARRAY_TASK_ID" in',
        *cases,
        "esac",
        f'exec {shlex.join([*program, limit])} "$@"',
    ]
    return "\n".join([*lines, ""])
