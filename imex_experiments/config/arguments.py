"""Read the `key=value` arguments of a script into a dataclass, and print its usage."""

import inspect
import json
import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, get_origin

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import ConfigKeyError, ValidationError

from imex_experiments.errors import ConfigError, nearest

Arguments = TypeVar("Arguments")

HELP = {"--help", "-h"}
"""Words that ask for the usage instead of the work."""


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
"""Overrides with which it could be another one, or none."""


def keep_hooks(arguments: list[str]) -> None:
    """ConfigError for an override that would switch off all checks; Hydra reads it later."""
    for word in filter(LOSES_HOOKS.fullmatch, arguments):
        raise ConfigError(
            f"{word}: {HOOKS} checks and prepares every run, it stays; give others names "
            "of their own, as +hydra.callbacks.mine={_target_: ...}"
        )


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
