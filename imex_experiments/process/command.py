"""The outermost frame of every command: one line and an exit code for any failure."""

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
from imex_experiments.process.allocator import keep_freed_memory
from imex_experiments.process.console import lenient_console
from imex_experiments.process.interrupts import INTERRUPTS

log = logging.getLogger(__name__)
ALLOW_MORE = "HYDRA_INSTANTIATE_ALLOWLIST_OVERRIDE"
"""Takes classes off Hydra's own list of dangerous ones; ignored."""

PLUGINS = {"ray": "hydra-ray-launcher", "submitit_slurm": "hydra-submitit-launcher"}
"""Launchers of other packages, and who brings them."""

INSTALL_CLUSTER = "pip install -c constraints.txt -e '.[cluster]'"


def run_command(main: Callable[[], object]) -> NoReturn:
    """Run a command and end the process by the contract of `errors`.

    A failure is one line on stderr; HYDRA_FULL_ERROR=1 adds the traceback.
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
            error = _told(caught)
            if isinstance(error, KeyboardInterrupt):
                error = INTERRUPTS.pending or error  # Ray makes a Ctrl-C of any other
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
    """A disk or folder that TensorBoard's thread misses: the main one tells it, once."""
    error = failure.exc_value
    gone = isinstance(error, FileNotFoundError)
    if gone or (error is not None and isinstance(root_cause(error), StorageError)):
        log.debug("%s: %s", failure.thread, error)
    else:
        threading.__excepthook__(failure)


def hush_lightning() -> None:
    """Keep hints that are not about this run off the screen."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    for pattern in (
        ".*does not have many workers.*",
        ".*smaller than the logging interval.*",
        ".*LeafSpec.*",
        ".*sync_dist=True.*",
        ".*`srun` command is available.*",
    ):
        warnings.filterwarnings("ignore", pattern)


def _told(error: BaseException) -> BaseException:
    """The error as the user should hear it."""
    if isinstance(error, SystemExit) and isinstance(error.__cause__, Exception):
        return _told(error.__cause__)
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return ConfigError(_hydra_message(error))
    return root_cause(error)


ABSENT = re.compile(r"Could not delete from config\. '(\S+)' does not exist")
PRESENT = re.compile(r"Could not append to config\. An item is already at '(\S+)'")


def _nearest_key(key: str, error: Exception) -> str:
    """A hint for a key that was to be deleted: Hydra's message says nothing of others.

    The configuration that does not have it is still in the frame that raised the error.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    node = frames[-1].f_locals.get("cfg")
    for name in key.split("."):
        if not isinstance(node, DictConfig) or name not in node:
            break
        node = node[name]
    return nearest(name, node if isinstance(node, DictConfig) else ())


def _hydra_message(error: Exception) -> str:
    cause = error.__cause__
    first = (str(error) or str(cause)).splitlines()[0]
    absent = [plugin for name, plugin in PLUGINS.items() if f"/{name}'" in first]
    if absent and "Could not load 'hydra/launcher/" in first:
        return f"hydra/launcher: {absent[0]} is missing: {INSTALL_CLUSTER}"
    if isinstance(error, MissingConfigException) and error.options:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        return f"{group}={name}: no such choice; known: {', '.join(error.options)}"
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
