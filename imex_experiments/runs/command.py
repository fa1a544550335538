"""The outermost frame of every command: one line and an exit code for any failure."""

import inspect
import json
import logging
import os
import re
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_origin

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException, ValidationError

from imex_experiments.runs.allocator import keep_freed_memory
from imex_experiments.runs.console import lenient_console
from imex_experiments.runs.errors import (
    FULL_ERROR,
    ConfigError,
    RunError,
    StorageError,
    exit_code,
    nearest,
    one_line,
    root_cause,
)
from imex_experiments.runs.interrupts import INTERRUPTS
from imex_experiments.runs.sweep import run_job

log = logging.getLogger(__name__)

Arguments = TypeVar("Arguments")
ALLOW_MORE = "HYDRA_INSTANTIATE_ALLOWLIST_OVERRIDE"
"""Takes classes off Hydra's own list of dangerous ones; ignored."""

PLUGINS = {"ray": "hydra-ray-launcher", "submitit_slurm": "hydra-submitit-launcher"}
"""Launchers of other packages, and who brings them."""

HELP = {"--help", "-h"}
"""Words that ask for the usage instead of the work."""

INSTALL_CLUSTER = "pip install -c constraints.txt -e '.[cluster]'"


def run_command(main: Callable[[], object]) -> NoReturn:
    """Run a command and end the process by the contract of `runs.errors`.

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


NOTHING = re.compile(
    r"\+{0,2}(data|model|task|optimizer|scheduler|trainer|callbacks|logger|experiment"
    r"|\w+(?:/\w+)+)=null"
)
"""A group of which nothing is chosen."""


def without_null(arguments: list[str]) -> list[str]:
    """`logger=null` as Hydra takes it for the choice of a group: `~logger`."""
    chosen = (NOTHING.fullmatch(word) for word in arguments)
    return [
        f"~{match[1]}" if match else word
        for match, word in zip(chosen, arguments, strict=True)
    ]


HOOKS = "hydra.callbacks.hooks"
"""Where Hydra's configuration has the callback that checks everything."""

LOSES_HOOKS = re.compile(rf"[~+]*hydra\.callbacks([=@].*)?|[~+]*{re.escape(HOOKS)}\b.*")
"""Words with which it could be another one, or none."""


def keep_hooks(arguments: list[str]) -> None:
    """ConfigError for a word that would switch off all checks, before Hydra reads it."""
    for word in filter(LOSES_HOOKS.fullmatch, arguments):
        raise ConfigError(
            f"{word}: {HOOKS} checks and prepares every run, it stays; give others names "
            "of their own, as +hydra.callbacks.mine={_target_: ...}"
        )


Task = Callable[[DictConfig], float]


def job(script: str) -> Callable[[Task], Task]:
    """The body of a Hydra application that is run as `python <script>`.

    In a sweep it runs as a child process. In a single run it fails without words of
    Hydra's: it prints a line of its own for an Exception, none for SystemExit.
    """

    def decorate(task: Task) -> Task:
        @wraps(task)
        def body(cfg: DictConfig) -> float:
            if HydraConfig.get().mode is RunMode.MULTIRUN:
                return run_job(script)
            try:
                return task(cfg)
            except Exception as error:
                raise SystemExit(exit_code(error)) from error

        return body

    return decorate


def parse_arguments(
    schema: type[Arguments], argv: list[str] | None = None, plain: str | None = None
) -> Arguments:
    """Return `key=value` words as an instance of a dataclass.

    Words that are no such pair, as paths are, go to the list `plain` if one is named. A
    list of one needs no brackets. `--help` or `-h` prints the usage and ends with 0.
    ConfigError for anything else.
    """
    words = sys.argv[1:] if argv is None else argv
    if HELP & set(words):
        print(usage_of(schema))
        raise SystemExit(0)
    known = [field.name for field in fields(schema)]  # type: ignore[arg-type]
    usage = " ".join(f"{name}=..." for name in known)
    paths = [word for word in words if _is_plain(word)] if plain else []
    words = [word for word in words if word not in paths]
    for word in words:
        if "=" not in word:
            raise ConfigError(f"{word}: expected key=value words: {usage}")
    try:
        given = OmegaConf.from_dotlist(words)
        for field in fields(schema):  # type: ignore[arg-type]
            only = given.get(field.name)
            if get_origin(field.type) is list and isinstance(only, str | int | float):
                given[field.name] = [only]
        if plain and paths:
            given[plain] = [*paths, *(given.get(plain) or [])]
        merged = OmegaConf.merge(OmegaConf.structured(schema), given)
        for name in known:
            if OmegaConf.is_missing(merged, name):
                raise ConfigError(f"{name}: missing; usage: {usage}")
        return OmegaConf.to_object(merged)  # type: ignore[return-value]
    except ConfigKeyError as error:
        key = error.full_key or ""
        raise ConfigError(f"{key}: unknown key, {nearest(key, known)}") from error
    except ValidationError as error:
        raise ConfigError(f"{error.full_key}: {str(error).splitlines()[0]}") from error


def usage_of(schema: type[Any]) -> str:
    """Return what a command is for, and its keys with their defaults.

    The command is the module of the dataclass, its docstring says what it is for.
    """
    defaults: Any = OmegaConf.to_container(OmegaConf.structured(schema))
    lines = [f"  {key}={_written(value)}" for key, value in defaults.items()]
    about = inspect.getdoc(sys.modules[schema.__module__]) or ""
    return "\n".join([about, "", "keys and their defaults:", *lines])


def _written(default: object) -> str:
    """Return a default as one would give it on the command line."""
    if default == MISSING:
        return "<must be given>"
    if isinstance(default, str):
        return default
    return json.dumps(default, separators=(",", ":")).replace('"', "")


def split_arguments(
    schema: type[Arguments], plain: str | None = None
) -> tuple[Arguments, list[str]]:
    """Return the words of sys.argv that are the schema's own, and the others: train.py's."""
    own = {field.name for field in fields(schema)}  # type: ignore[arg-type]
    mine = [
        word
        for word in sys.argv[1:]
        if word.partition("=")[0] in own | HELP or (plain and "=" not in word)
    ]
    words = [word for word in sys.argv[1:] if word not in mine]
    return parse_arguments(schema, mine, plain), words


def _is_plain(word: str) -> bool:
    """Whether a word is a path: `runs/0_seed=1` is one, `out=runs` is not."""
    key, equals, _ = word.partition("=")
    return not equals or not key.isidentifier() or Path(word).exists()


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
