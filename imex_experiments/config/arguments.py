"""Read the `key=value` arguments of a script into a dataclass, and print its usage."""

import inspect
import json
import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, get_origin

from hydra._internal.utils import get_args_parser
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import ConfigKeyError, ValidationError

from imex_experiments.errors import ConfigError, nearest
from imex_experiments.installed import command_line

Arguments = TypeVar("Arguments")

HELP = {"--help", "-h"}
"""Arguments that print the usage and end the command."""

COMMAND = re.compile(r"python scripts/(\w+)\.py")
"""A command as docstrings name it."""

REWRITTEN = (
    (r"\+{0,2}logger=null", r"logger=none"),
    (
        r"\+{0,2}(data|model|task|optimizer|scheduler|trainer|callbacks|experiment"
        r"|\w+(?:/\w+)+)=null",
        r"~\1",
    ),
    # A run had one logger without a name once, whose arguments stood below `logger`.
    (r"(\+{0,2})logger\.(\w+)=(?!null$|\{)(.*)", r"\1logger.tensorboard.\2=\3"),
    (
        r"~logger\.(_target_|save_dir|name|version|default_hp_metric)(=.*)?",
        r"~logger.tensorboard.\1\2",
    ),
    # A pattern of file names whose quotes the shell took: Hydra reads braces as a mapping.
    (
        r"(\+{0,2}data\.(?:images|labels|depths))=([^'\"]*\{(?:split|name)\}[^'\"]*)",
        r"\1='\2'",
    ),
)
"""Pattern of a whole override -> the override that Hydra reads in its place."""


def rewritten(arguments: list[str]) -> list[str]:
    """Return overrides as Hydra expects them, such as `~scheduler` for `scheduler=null`.

    The arguments of the one logger of older command lines go to that of TensorBoard.
    """
    for pattern, replacement in REWRITTEN:
        whole = re.compile(rf"\A(?:{pattern})\Z", re.DOTALL)
        arguments = [whole.sub(replacement, argument) for argument in arguments]
    return arguments


def options_first(arguments: list[str]) -> list[str]:
    """Return the arguments of Hydra with options such as --config-dir before overrides.

    Its parser refuses overrides on both sides of an option.
    """
    overrides = get_args_parser().parse_intermixed_args(arguments).overrides
    options = [argument for argument in arguments if argument not in overrides]
    return [*options, *overrides]


def split_config_dir(arguments: list[str]) -> tuple[str | None, list[str]]:
    """Return the folder of Hydra's option --config-dir, and the overrides.

    Raises ConfigError for any other option.
    """
    known, unknown = get_args_parser().parse_known_intermixed_args(arguments)
    given = vars(known)
    overrides, config_dir = given.pop("overrides"), given.pop("config_dir")
    for option in (*unknown, *(f"--{key}" for key, value in given.items() if value)):
        raise ConfigError(f"{option}: no option of this command; it has --config-dir")
    return config_dir, overrides


HOOKS = "hydra.callbacks.hooks"
"""Key of the Hydra callback that checks and prepares every run."""

REPLACES_HOOKS = re.compile(
    rf"[~+]*hydra\.callbacks([=@].*)?|[~+]*{re.escape(HOOKS)}\b.*"
)
"""Overrides that replace or remove this callback."""


def keep_hooks(arguments: list[str]) -> None:
    """Raise ConfigError for an override that switches off all checks.

    This precedes Hydra, which would apply the override before any check runs.
    """
    for override in filter(REPLACES_HOOKS.fullmatch, arguments):
        raise ConfigError(
            f"{override}: {HOOKS} checks and prepares every run, it stays; give others names "
            "of their own, as +hydra.callbacks.mine={_target_: ...}"
        )


def parse_arguments(
    schema: type[Arguments], argv: list[str] | None = None, plain: str | None = None
) -> Arguments:
    """Return `key=value` arguments as an instance of the dataclass `schema`.

    Arguments without a key, such as paths, go to the field `plain` if it is given. A list
    of one value needs no brackets. `--help` or `-h` prints the usage and exits with 0.
    Raises ConfigError for anything else.
    """
    arguments = sys.argv[1:] if argv is None else argv
    if HELP & set(arguments):
        print(usage_of(schema))
        raise SystemExit(0)
    known = [field.name for field in fields(schema)]  # type: ignore[arg-type]
    usage = " ".join(f"{name}=..." for name in known)
    paths = [argument for argument in arguments if _is_plain(argument)] if plain else []
    pairs = [argument for argument in arguments if argument not in paths]
    for pair in pairs:
        if "=" not in pair:
            raise ConfigError(f"{pair}: expected key=value; usage: {usage}")
    try:
        given = OmegaConf.from_dotlist(pairs)
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
    """Return the usage of a command: its purpose, and its keys with their defaults.

    The purpose is the docstring of the module that defines the dataclass. It names commands
    as in a checkout.
    """
    defaults: Any = OmegaConf.to_container(OmegaConf.structured(schema))
    lines = [f"  {key}={_written(value)}" for key, value in defaults.items()]
    about = inspect.getdoc(sys.modules[schema.__module__]) or ""
    about = COMMAND.sub(lambda found: command_line(found[1]), about)
    return "\n".join([about, "", "keys and their defaults:", *lines])


def _written(default: object) -> str:
    """Return a default value as it is written on the command line."""
    if default == MISSING:
        return "<must be given>"
    if isinstance(default, str):
        return default
    return json.dumps(default, separators=(",", ":")).replace('"', "")


def split_arguments(
    schema: type[Arguments], plain: str | None = None
) -> tuple[Arguments, list[str]]:
    """Return the arguments of a script, and the overrides in sys.argv for train.py.

    An argument belongs to the script if its key is a field of `schema`.
    """
    own = {field.name for field in fields(schema)}  # type: ignore[arg-type]
    mine = [
        argument
        for argument in sys.argv[1:]
        if argument.partition("=")[0] in own | HELP or (plain and "=" not in argument)
    ]
    overrides = [argument for argument in sys.argv[1:] if argument not in mine]
    return parse_arguments(schema, mine, plain), overrides


def _is_plain(argument: str) -> bool:
    """Return True for a path, such as `runs/0_seed=1`, and False for `out=runs`."""
    key, equals, _ = argument.partition("=")
    return not equals or not key.isidentifier() or Path(argument).exists()
