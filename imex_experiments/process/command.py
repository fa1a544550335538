"""Run a command, and end its process with one line and an exit code for any failure."""

import logging
import os
import re
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from typing import NoReturn

from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException, ValidationError

from imex_experiments.errors import (
    FULL_ERROR,
    ConfigError,
    RunError,
    StorageError,
    exit_code,
    nearest,
    one_line,
    root_cause,
)
from imex_experiments.installed import install_line
from imex_experiments.process.allocator import keep_freed_memory
from imex_experiments.process.console import lenient_console
from imex_experiments.process.interrupts import INTERRUPTS

log = logging.getLogger(__name__)
ALLOW_MORE = "HYDRA_INSTANTIATE_ALLOWLIST_OVERRIDE"
"""The variable that takes classes off Hydra's list of dangerous ones; it is ignored."""

PLUGINS = {"ray": "hydra-ray-launcher"}
"""Launchers of other packages, and the packages to install."""

REPLACED = {
    "hydra/launcher=ray_cpu": "hydra/launcher=processes hydra.launcher.n_jobs=<number> runs "
    "so many jobs at a time, without Ray",
}
"""Choices that there were once, and what to give instead."""


def run_command(main: Callable[[], object]) -> NoReturn:
    """Run a command and end the process with an exit code of `errors`.

    A failure prints one line on stderr; HYDRA_FULL_ERROR=1 adds the traceback.
    """
    keep_freed_memory()
    hush_lightning()
    wants_traceback = os.environ.get(FULL_ERROR) == "1"
    os.environ.pop(ALLOW_MORE, None)
    logging.raiseExceptions = wants_traceback  # else a full disk fills the screen
    threading.excepthook = _thread_failed
    os.environ[FULL_ERROR] = "1"  # else Hydra prints and exits by itself, always with 1
    with lenient_console():
        try:
            with INTERRUPTS.raised():
                main()
        except BaseException as caught:
            error = reported(caught)
            if isinstance(error, KeyboardInterrupt):
                error = INTERRUPTS.pending or error  # Ray turns SIGTERM into a Ctrl-C
            if isinstance(error, SystemExit):
                raise
            if wants_traceback:
                traceback.print_exception(error)
            unforeseen = exit_code(error) == 1 and not isinstance(error, RunError)
            hint = f" ({FULL_ERROR}=1 shows where)" if unforeseen else ""
            print(f"error: {one_line(error)}{hint}", file=sys.stderr)
            sys.exit(exit_code(error))
    sys.exit(0)


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    """Silence storage errors of TensorBoard's thread: the main thread reports them."""
    error = failure.exc_value
    gone = isinstance(error, FileNotFoundError)
    if gone or (error is not None and isinstance(root_cause(error), StorageError)):
        log.debug("%s: %s", failure.thread, error)
    else:
        threading.__excepthook__(failure)


def hush_lightning() -> None:
    """Suppress the hints of Lightning that do not concern a run of this package."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    for pattern in (
        ".*does not have many workers.*",
        ".*smaller than the logging interval.*",
        ".*LeafSpec.*",
        ".*in eval mode at the start of training.*",  # frozen norms
        ".*sync_dist=True.*",
        ".*`srun` command is available.*",
    ):
        warnings.filterwarnings("ignore", pattern)


def reported(error: BaseException) -> BaseException:
    """Return the error that is reported for an error that was caught."""
    if isinstance(error, SystemExit) and isinstance(error.__cause__, Exception):
        return reported(error.__cause__)
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return ConfigError(_hydra_message(error))
    return root_cause(error)


ABSENT = re.compile(r"Could not delete from config\. '(\S+)' does not exist")
PRESENT = re.compile(r"Could not append to config\. An item is already at '(\S+)'")


def _nearest_key(key: str, error: Exception) -> str:
    """Return the nearest key to one that an override deletes but that does not exist.

    Hydra's message does not list the keys that exist. The configuration is read from the
    frame that raised the error.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    node = frames[-1].f_locals.get("cfg")
    for name in key.split("."):
        if not isinstance(node, DictConfig) or name not in node:
            break
        node = node[name]
    return nearest(name, node if isinstance(node, DictConfig) else ())


def _hydra_message(error: Exception) -> str:
    """Return the message for an error of Hydra or OmegaConf: key, value and remedy."""
    cause = error.__cause__
    first = (str(error) or str(cause)).splitlines()[0]
    absent = [plugin for name, plugin in PLUGINS.items() if f"/{name}'" in first]
    if absent and "Could not load 'hydra/launcher/" in first:
        return f"hydra/launcher: {absent[0]} is missing: {install_line('cluster')}"
    if isinstance(error, MissingConfigException) and error.options:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        if now := REPLACED.get(f"{group}={name}"):
            return f"{group}={name}: there is none any more; {now}"
        known = ", ".join(error.options)
        return (
            f"{group}={name}: no such choice; known: {known} "
            "(those of your own need --config-dir=<folder>)"
        )
    if match := ABSENT.match(first):
        return f"{match[1]}: unknown key, {_nearest_key(match[1], error)}"
    if match := PRESENT.match(first):
        return f"{match[1]}: has a value already, give it without +"
    if isinstance(error, OverrideParseException):
        return f"{error.override}: {first}"
    if isinstance(cause, OmegaConfBaseException) and cause.parent_node is not None:
        where = cause.full_key or cause.key
        if isinstance(cause, ValidationError):
            return f"{where}: {str(cause).splitlines()[0]}"
        return f"{where}: unknown key, {nearest(cause.key, cause.parent_node)}"
    if (
        "No match in the defaults list" in first
        and GlobalHydra.instance().is_initialized()
    ):
        name = first.split("'")[1]
        groups = GlobalHydra.instance().config_loader().list_groups("")
        return f"{name}: unknown group, {nearest(name, groups)}"
    return first
