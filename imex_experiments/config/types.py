"""Check a value of the configuration against the annotation of a constructor argument."""

import inspect
import typing
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from omegaconf import DictConfig
from typeguard import TypeCheckError, check_type

from imex_experiments.errors import ConfigError


def check_value(target: Callable[..., Any], name: str, value: Any, key: str) -> None:
    """Raise ConfigError if a value has another type than the argument `name` of a class."""
    if _is_open(value):
        return  # an interpolation, or a node that is checked by itself
    hint = _hint(target, name)
    try:
        try:
            check_type(value, hint)
        except TypeCheckError:  # YAML has lists where a signature may have a tuple
            check_type(tuple(value) if isinstance(value, list) else value, hint)
        if isinstance(value, bool) and not _admits_bool(hint):
            raise TypeCheckError("is bool")
    except TypeCheckError as error:
        raise ConfigError(
            f"{key}={value}: expected {_type_text(hint)}, got {type(value).__name__}"
        ) from error


def _hint(target: Callable[..., Any], name: str) -> Any:
    """Return the type of one constructor argument, Any if it is not known at run time.

    Each annotation is resolved by itself: one may name a class that is imported for type
    checkers alone (`if TYPE_CHECKING:`), as in WandbLogger.
    """
    constructor: Any = inspect.unwrap(target.__init__)
    try:
        annotation = getattr(constructor, "__annotations__", {}).get(name, Any)
        only = SimpleNamespace(__annotations__={name: annotation})
        names = getattr(constructor, "__globals__", {})
        hint = typing.get_type_hints(only, globalns=names)[name]
        return Mapping if hint is DictConfig else hint  # of launchers
    except (NameError, AttributeError):
        return Any


def _type_text(hint: Any) -> str:
    """Return a type as text for an error: `float or int` for a typing.Union."""
    if typing.get_origin(hint) is typing.Union:
        return " or ".join(map(_type_text, typing.get_args(hint)))
    return inspect.formatannotation(hint).replace("collections.abc.", "")


def _is_open(value: Any) -> bool:
    """Return True for a value that holds a node with a class, or an interpolation."""
    if isinstance(value, dict):
        return "_target_" in value or any(map(_is_open, value.values()))
    if isinstance(value, list):
        return any(map(_is_open, value))
    return isinstance(value, str) and ("${" in value or value == "???")


def _admits_bool(hint: Any) -> bool:
    return hint in (bool, Any, object) or any(map(_admits_bool, typing.get_args(hint)))
