"""Resume a sweep, `sweep.resume=<dir>`: its command again, in its folder."""

import re
from collections.abc import Sequence
from pathlib import Path

from imex_experiments.config.overrides import hydra_quoted, single_value
from imex_experiments.errors import CheckpointError, ConfigError
from imex_experiments.results.sources import sweep_words
from imex_experiments.runs.layout import sweep_file
from imex_experiments.runs.plain import check_folder
from imex_experiments.runs.strangers import taken_words


def resumed_sweep(arguments: list[str]) -> list[str]:
    """Return the arguments; for `sweep.resume=<dir>` those of that sweep come first.

    ConfigError if there is no such sweep, CheckpointError for overrides that could run code.
    """
    given = [word for word in arguments if word.startswith("sweep.resume=")]
    if not given:
        return arguments
    sweep = Path(single_value(given[-1]))
    source = sweep_file(sweep)
    if not source.is_file():
        raise ConfigError(
            f"sweep.resume={sweep}: not a sweep, it has no {source.name}; "
            "start a new sweep"
        )
    check_folder(sweep)
    launch, words = sweep_words(sweep)
    now = [word for word in arguments if word not in given]
    return [
        *_launch(launch, sweep, now),
        *taken_words(words, source, arguments),
        f"hydra.sweep.dir={hydra_quoted(sweep)}",
        *now,
    ]


LAUNCH = re.compile(
    r"hydra\.mode=\w+|hydra/launcher=\w+"
    r"|hydra\.sweep\.subdir=(\$\{hydra\.job\.num\}_)?\$\{hydra\.job\.override_dirname\}"
    r"|hydra\.job\.config\.override_dirname\.exclude_keys=[][\w./@,]*"
    r"|hydra\.launcher\.(n_jobs=([1-9]|[1-5]\d|6[0-4])|fork=\w+)"
    r"|hydra\.launcher\.(ray\.(init|remote)\.num_[cg]pus|partition|account|qos"
    r"|constraint|exclude|timeout_min|signal_delay_s|max_num_timeout|cpus_per_task"
    r"|gpus_per_node|gres|mem_gb|array_parallelism)=[\w.:+-]*"
)
"""Overrides of Hydra's node that are taken from a sweep's folder: numbers and places of jobs,
at most 64 of them at a time on this machine, no commands."""


def _launch(words: Sequence[str], sweep: Path, now: Sequence[str]) -> list[str]:
    """Return the overrides of the launcher that are not given anew.

    The folder of the sweep is the one that is resumed. CheckpointError for any other
    override of Hydra's node.
    """
    keys = {"hydra.sweep.dir", *(word.partition("=")[0] for word in now)}
    kept = [word for word in words if word.partition("=")[0] not in keys]
    if "hydra/launcher" in keys:  # another one has other settings
        kept = [word for word in kept if not word.startswith("hydra.launcher.")]
    for word in kept:
        if not LAUNCH.fullmatch(word):
            raise CheckpointError(
                f"{sweep_file(sweep)}: {word!r} is not taken from a folder, it could run "
                "code or too much at a time; give it on the command line"
            )
    return kept
