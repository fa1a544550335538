"""Record the beginning and the end of a run in status.json."""

import logging
import os
import platform
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from imex_experiments.errors import (
    INTERRUPTED,
    CheckpointError,
    StorageError,
    exit_code,
    is_interrupt,
    one_line,
    root_cause,
)
from imex_experiments.files import as_json, staying, sync_folder, write_json, write_text
from imex_experiments.installed import INSTALLED
from imex_experiments.operators.kernels import cpp
from imex_experiments.process.interrupts import INTERRUPTS
from imex_experiments.process.rank import is_first_process
from imex_experiments.runs.checkpoint_io import has_checkpoint
from imex_experiments.runs.layout import (
    CHOICES,
    CONFIG,
    HYDRA,
    OVERRIDES,
    STATUS,
    resume_command,
)
from imex_experiments.runs.plain import read_json

log = logging.getLogger(__name__)

KINDS = dict.fromkeys(("state", "reason", "monitor", "mode", "model", "data"), str)
"""Type of each field of status.json that is read back; it may be null."""

PACKAGES = ("imex-experiments", "torch", "pytorch-lightning", "hydra-core")


def write_command(folder: Path, cfg: DictConfig) -> None:
    """Write configuration and overrides to `.hydra/`, which a resume needs.

    Hydra writes them too, but neither atomically nor synced: a kill in between would lose a
    run that is resumed with changes.
    """
    if not is_first_process():
        return
    hydra: Any = HydraConfig.instance().cfg
    with staying(folder):
        (folder / HYDRA).mkdir(exist_ok=True)
    write_text(folder / CONFIG, OmegaConf.to_yaml(cfg))
    write_text(folder / CHOICES, OmegaConf.to_yaml(hydra))
    write_text(folder / OVERRIDES, OmegaConf.to_yaml(hydra.hydra.overrides.task))
    sync_folder(folder / HYDRA)
    sync_folder(folder)


@contextmanager
def recording(
    folder: Path, more: Sequence[str] = (), **facts: Any
) -> Iterator[dict[str, Any]]:
    """Write `<folder>/status.json`: running, then finished, failed or interrupted.

    It holds the exit code, the reason, the given facts, versions, the git commit, the
    number of threads, the vector instructions and the device. The body may add to the
    dictionary that it gets, which is written again at the end. In the body, Ctrl-C and
    SIGTERM raise exceptions. The command that resumes the run has the arguments `more`.
    """
    if not is_first_process():
        yield {}
        return
    status: dict[str, Any] = {
        "state": "running",
        **facts,
        **_surroundings(),
        "started": now(),
    }
    _warn_of_other_machine(status_if_readable(folder), status)
    write_json(folder / STATUS, status)
    with INTERRUPTS.raised():
        try:
            yield status
        except BaseException as caught:
            error = INTERRUPTS.pending or root_cause(caught)
            with INTERRUPTS.ignored():
                _write_end(folder, status, more, error, caught)
            if error is caught:
                raise
            raise error from caught
        with INTERRUPTS.ignored():
            _write_end(folder, status, more)


def _write_end(
    folder: Path,
    status: dict[str, Any],
    more: Sequence[str],
    error: BaseException | None = None,
    caught: BaseException | None = None,
) -> None:
    state, code, reason = "finished", 0, None
    if error is not None:
        code, reason = exit_code(error), one_line(error)
        state = "interrupted" if is_interrupt(error) else "failed"
        log.debug("the run ended early", exc_info=caught)
        if state == "interrupted" and has_checkpoint(folder):
            run = Path(os.path.relpath(folder))
            log.warning("go on with: %s", resume_command(run, more))
    status |= {"state": state, "exit_code": code, "reason": reason, "finished": now()}
    try:
        write_json(folder / STATUS, status)
    except OSError:  # a full disk: overwrite the blocks that the file has already
        (folder / STATUS).write_text(as_json(status))


def _warn_of_other_machine(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Warn if a resumed run has another device or other versions than before."""
    differing = [
        f"{key} {before[key]} -> {now[key]}"
        for key in ("device", "threads", "vectors", "kernels", "versions")
        if key in before and before[key] != now[key]
    ]
    if differing:
        log.warning(
            "the run goes on, but not bit for bit as it would have: %s",
            ", ".join(differing),
        )


def record_death(folder: Path, code: int, last_words: str) -> dict[str, Any]:
    """Write status.json for a run that was killed; return its content.

    `code` is the exit code of the process, or the negative number of a signal. A run that a
    signal ended before it could record so is interrupted, any other one failed.
    """
    reason = last_words
    if code < 0:
        name = signal.Signals(-code).name
        reason = f"killed by {name}; running out of memory is the usual cause"
        code = StorageError.exit_code
    state = "interrupted" if code in INTERRUPTED else "failed"
    return record_end(folder, state, code or 1, reason)


def record_end(folder: Path, state: str, code: int, reason: str) -> dict[str, Any]:
    """Write the end of a run to status.json from outside of it; return the content."""
    end = {"state": state, "exit_code": code, "reason": reason, "finished": now()}
    status = status_if_readable(folder) | end
    write_json(folder / STATUS, status)
    return status


def _surroundings() -> dict[str, Any]:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {
        "device": device,
        "visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "threads": torch.get_num_threads(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "kernels": cpp.library() is not None,  # they round in their own order
        "python": platform.python_version(),
        "versions": {package: _version(package) for package in PACKAGES},
        "git_commit": _git_commit(),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # run from its source alone
        return "not installed"


def _git_commit() -> str | None:
    """Return the git commit of this code, with a + if the working tree differs."""
    if INSTALLED:  # perhaps in the checkout of another project
        return None
    command = [
        "git",
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--dirty=+",
    ]
    command += ["--exclude=*", "--abbrev=40"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def read_status(folder: Path) -> dict[str, Any]:
    """Return the content of status.json, {} if there is none.

    Raises CheckpointError for content that no run writes.
    """
    path = folder / STATUS
    if not path.is_file():
        return {}
    status = read_json(path)
    for key, kind in KINDS.items():
        if not isinstance(status.get(key), kind | None):
            raise CheckpointError(f"{path}: not readable ({key} is no {kind.__name__})")
    return status


def status_if_readable(folder: Path) -> dict[str, Any]:
    """Return the content of status.json, {} with a warning if it is damaged."""
    try:
        return read_status(folder)
    except CheckpointError as error:
        log.warning("%s; it is written anew", error)
        return {}


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
