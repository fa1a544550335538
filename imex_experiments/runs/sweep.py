"""Jobs of a sweep: each one is the command of a single run, in a process of its own.

So a job that is killed, that runs out of memory or that ends the interpreter takes nothing
with it, the device's memory is free again after it, and its numbers are those of the same
run outside of a sweep. Hydra's launchers only decide where and when a job starts.
"""

import logging
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from imex_experiments.runs.checkpoint_io import has_checkpoint
from imex_experiments.runs.errors import (
    FULL_ERROR,
    CheckpointError,
    ConfigError,
    StorageError,
)
from imex_experiments.runs.files import sync_folder, write_text
from imex_experiments.runs.interrupts import INTERRUPTS
from imex_experiments.runs.layout import (
    CONSOLE,
    HISTORY,
    STATUS,
    SWEEP,
    hydra_quoted,
    single_value,
    sweep_file,
)
from imex_experiments.runs.load_run import read_metrics
from imex_experiments.runs.record import (
    alone_in,
    read_status,
    record_death,
    status_if_readable,
)
from imex_experiments.runs.strangers import check_folder, read_yaml, taken_words

log = logging.getLogger(__name__)

ENDED = ("finished", "failed", "interrupted")
"""States of a run that wrote its own end."""

PARENT_WATCHED = "IMEX_END_WITH_PARENT"
"""Set for the processes of jobs; see `end_with_parent`."""


def resumed_sweep(arguments: list[str]) -> list[str]:
    """The arguments themselves, or for `sweep.resume=<dir>` those of that sweep, then these.

    ConfigError if there is no such sweep, CheckpointError for words that could run code.
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
        *taken_words(words, source, now),
        f"hydra.sweep.dir={hydra_quoted(sweep)}",
        *now,
    ]


def sweep_words(sweep: Path) -> tuple[list[str], list[str]]:
    """Return the overrides with which a sweep was started, of Hydra's own and the others.

    CheckpointError for a file without them.
    """
    source = sweep_file(sweep)
    content = read_yaml(source)
    try:
        overrides = content["hydra"]["overrides"]
        return [*map(str, overrides["hydra"])], [*map(str, overrides["task"])]
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{source}: not that of a sweep") from error


def write_launch(sweep: Path, config: DictConfig) -> None:
    """Write how a sweep is started, which `sweep_words` reads.

    Hydra does so too, but in place: a kill in its midst would lose a sweep that is resumed.
    """
    overrides = OmegaConf.create({"hydra": {"overrides": config.hydra.overrides}})
    write_text(sweep / SWEEP, OmegaConf.to_yaml(overrides))
    sync_folder(sweep)


LAUNCH = re.compile(
    r"hydra\.mode=\w+|hydra/launcher=\w+"
    r"|hydra\.sweep\.subdir=(\$\{hydra\.job\.num\}_)?\$\{hydra\.job\.override_dirname\}"
    r"|hydra\.job\.config\.override_dirname\.exclude_keys=[][\w./@,]*"
    r"|hydra\.launcher\.(ray\.(init|remote)\.num_[cg]pus|partition|account|qos"
    r"|constraint|timeout_min|nodes|tasks_per_node|cpus_per_task|gpus_per_node|gres"
    r"|mem_gb|array_parallelism)=[\w.:+-]*"
)
"""Hydra's words that a sweep takes over from its folder: how many and where, no commands."""


def _launch(words: Sequence[str], sweep: Path, now: Sequence[str]) -> list[str]:
    """The launcher and its size, but for what is given anew; CheckpointError for the rest.

    The folder of the sweep is the one that is resumed.
    """
    keys = {"hydra.sweep.dir", *(word.partition("=")[0] for word in now)}
    kept = [word for word in words if word.partition("=")[0] not in keys]
    for word in kept:
        if not LAUNCH.fullmatch(word):
            raise CheckpointError(
                f"{sweep_file(sweep)}: {word!r} is not taken from a folder, it could run "
                "code; give it on the command line"
            )
    return kept


OBJECT_STORE = 75 * 2**20
"""Bytes for what Ray shares between jobs: their words, and their scores."""


def start_launcher(launcher: DictConfig) -> None:
    """Start Ray, if it is the launcher, in such a way that a sweep can be ended.

    Its C++ takes SIGTERM, and aborts; so our handlers are installed again. And what ends
    its workers would kill their jobs, which end by themselves: see `end_with_parent`.
    """
    if not str(launcher._target_).endswith(".RayLauncher"):
        return
    import ray  # an optional dependency, and slow

    os.environ.setdefault("RAY_kill_child_processes_on_worker_exit", "0")
    init: Any = OmegaConf.to_container(launcher.ray.init, resolve=True)
    if init.get("address") is None:
        init.setdefault("object_store_memory", OBJECT_STORE)  # not to join a cluster
    ray.init(**init)
    INTERRUPTS.listen()


def run_job(script: str) -> float:
    """Run the present job of a sweep; return its score, NaN if it failed.

    The others go on, and the sweep tells of all failures at its end.
    """
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    name = f"job {hydra.job.num} ({hydra.job.override_dirname.replace(',', ' ')})"
    if status_if_readable(folder).get("state") == "finished":
        log.info("%s was finished before", name)
        return score_of(folder)
    log.info("%s starts", name)
    start = time.perf_counter()
    status = run_in_child(script, list(hydra.overrides.task), folder)
    if status["state"] == "finished":
        seconds, score = time.perf_counter() - start, score_of(folder)
        log.info("%s: %s %.4f, %.0f s", name, status["monitor"], score, seconds)
        return score
    log.error(
        "%s %s with exit code %d: %s (see %s)",
        name,
        status["state"],
        status["exit_code"],
        status["reason"],
        folder / CONSOLE,
    )
    return math.nan


def run_in_child(script: str, words: Sequence[str], folder: Path) -> dict[str, Any]:
    """`python <script> <words>` in a folder; status.json as it is at the end.

    A run that was cut off goes on from its last checkpoint, a failed one starts anew. One
    that another process is at is left as it is: what is returned says so.
    """
    place = hydra_quoted(folder)
    try:
        with alone_in(folder):
            status = status_if_readable(folder)
            state = status.get("state")
            if state == "finished":  # by the process that was waited for
                return status
            if state in ("running", "interrupted") and has_checkpoint(folder):
                words = [f"resume={place}"]
            else:
                _clear(folder)
                words = [*words, f"hydra.run.dir={place}"]
        with INTERRUPTS.raised(), (folder / CONSOLE).open("a", encoding="utf-8") as out:
            code = run_tied([sys.executable, script, *words], out)
        with alone_in(folder):
            status = status_if_readable(folder)
            if code < 0 or status.get("state") not in ENDED:
                status = record_death(folder, code, _last_line(folder / CONSOLE))
            return status
    except StorageError as error:
        return {"state": "failed", "exit_code": error.exit_code, "reason": str(error)}


def score_of(folder: Path) -> float:
    """The monitored metric of a finished run."""
    return read_metrics(folder)[read_status(folder)["monitor"]]


def end_with_parent() -> None:
    """In the process of a job: SIGTERM to itself when the launcher is gone.

    The launcher holds the other end of stdin; however it ends, the system closes it, and
    the job ends in order instead of training on for nobody.
    """
    if os.environ.pop(PARENT_WATCHED, None) is None:
        return

    def watch() -> None:
        os.read(0, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def run_tied(command: Sequence[str], output: IO[str] | None = None) -> int:
    """The exit code of a command that ends in order when this process ends, however.

    Its output, tracebacks included, goes to the file `output`; by default to where ours
    goes, with one line for a failure.
    """
    environment = {**os.environ, PARENT_WATCHED: "1"}
    if output is None:
        environment.pop(FULL_ERROR, None)
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=output,
        env=environment,
        start_new_session=True,  # Ctrl-C is ours to hand on, once
    )
    assert child.stdin is not None
    try:
        return child.wait()
    finally:
        child.stdin.close()
        child.wait()


def _last_line(console: Path) -> str:
    lines = console.read_text(encoding="utf-8", errors="replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    return said[-1].removeprefix("error: ") if said else "it said nothing"


def _clear(folder: Path) -> None:
    """Take away what a failed attempt left, but for its logs."""
    for name in ("checkpoints", "tensorboard", "figures"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for path in (HISTORY, STATUS):
        (folder / path).unlink(missing_ok=True)
