"""From configuration to objects: only allowed classes, checked before anything is called."""

import inspect
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType, SimpleNamespace
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from typeguard import TypeCheckError, check_type

from imex_experiments.errors import ConfigError, nearest

TRAINING = ("imex_experiments", "torch.optim", "pytorch_lightning")
"""Packages whose classes a configuration may name."""

REBUILDING = ("imex_experiments",)
"""Packages whose classes may be named when a network is rebuilt from a run folder."""

READS = {
    "pytorch_lightning.loggers.wandb.WandbLogger": ("wandb.init",),
    "pytorch_lightning.loggers.comet.CometLogger": ("comet_ml.ExperimentConfig",),
    "pytorch_lightning.loggers.tensorboard.TensorBoardLogger": (
        "torch.utils.tensorboard.SummaryWriter",
        "log_dir",
    ),
    "pytorch_lightning.callbacks.weight_averaging.WeightAveraging": (
        "torch.optim.swa_utils.AveragedModel",
        "model",
    ),
    "pytorch_lightning.callbacks.throughput_monitor.ThroughputMonitor": (
        "lightning_fabric.utilities.throughput.Throughput",
        *("available_flops", "world_size"),
    ),
}
"""Who reads the arguments that a class takes without naming them, and which of his are
given already."""

IGNORED = {"torch.optim.lr_scheduler.OneCycleLR": ("epochs", "steps_per_epoch")}
"""Arguments that a class does not read beside those that the program gives."""

HYDRAS = {"_target_", "_partial_"}
"""Keys of Hydra's that a node may have beside the arguments of its class."""


@dataclass(frozen=True)
class Part:
    """Describe what a node of the configuration has to be.

    `kind` is the base class. `given` are arguments that the program passes itself, so that
    a setting of that name would be lost. `more` are keys that the node has beside the
    arguments of its class. `partial` nodes get the rest of their arguments later.
    """

    kind: type
    given: Collection[str] = ()
    more: Collection[str] = ()
    partial: bool = False


def build(
    node: DictConfig | None,
    key: str,
    allowed: Sequence[str] = TRAINING,
    **arguments: Any,
) -> Any:
    """The object that a configuration node describes; None for an empty node.

    `arguments` are added to those of the node. ConfigError with key and value for a class
    outside of the allowed packages, an unknown or missing argument, a wrong type, and for
    every ValueError of a constructor. All classes and types are checked before the first
    constructor runs.
    """
    if not node:
        return None
    plain = _resolved(node, key)
    _check(plain, key, allowed, given=arguments)
    with refusing(key):
        return _made(plain, arguments)


def _made(node: Any, more: Mapping[str, Any] = MappingProxyType({})) -> Any:
    """Return a checked plain node with objects for its `_target_`s, `more` for the outer.

    `hydra.utils.instantiate` does so in ten times the time, most of it copies.
    """
    if isinstance(node, list):
        return [_made(item) for item in node]
    if not isinstance(node, dict):
        return node
    found = {name: _made(item) for name, item in node.items() if name not in HYDRAS}
    if "_target_" not in node:
        return found
    target = hydra.utils.get_object(node["_target_"])
    make = partial(target, **{**found, **more})
    return make if node.get("_partial_", False) else make()


_passed: set[str] = set()


def check(
    node: Any, key: str, part: Part | None = None, allowed: Sequence[str] = TRAINING
) -> None:
    """Check classes, keys and types of a node whose interpolations cannot be resolved yet.

    ConfigError as in `build`, and for a node that is not what `part` says. The points of a
    sweep have most nodes in common, so one that passed is remembered.
    """
    plain: Any = OmegaConf.to_container(node) if OmegaConf.is_config(node) else node
    if (text := repr((plain, key, part, allowed))) in _passed:
        return
    if part is not None and isinstance(plain, dict) and plain:
        target = locate(plain.get("_target_"), f"{key}._target_", allowed)
        if not issubclass(target, part.kind):
            raise ConfigError(
                f"{key}._target_={plain['_target_']}: expected a {part.kind.__name__}"
            )
        if bool(plain.get("_partial_", False)) != part.partial:
            raise ConfigError(f"{key}._partial_: expected {str(part.partial).lower()}")
        _refuse_unknown(target, plain, key, part.given, part.more)
        plain = {name: value for name, value in plain.items() if name not in part.more}
    _check(plain, key, allowed, given=None)
    _passed.add(text)


@contextmanager
def refusing(key: str) -> Iterator[None]:
    """Turn what a constructor refuses in the body into a ConfigError that names the key.

    So a package that it needs and that is not installed; the message says how to get it.
    """
    try:
        yield
    except (
        *(ValueError, TypeError, MisconfigurationException),
        ModuleNotFoundError,
    ) as error:
        message = " ".join(str(error).split())
        raise ConfigError(f"{key}: {message}") from error


def _resolved(node: DictConfig, key: str) -> Any:
    try:
        return OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        where = error.full_key or key
        raise ConfigError(
            f"{where}: {str(error).splitlines()[0]}; give it as {where}=<value>"
        ) from error


def _check(
    node: Any, key: str, allowed: Sequence[str], given: Mapping[str, Any] | None
) -> None:
    """`given` are arguments that will be added; None if what is missing is not known yet."""
    nothing: Mapping[str, Any] | None = None if given is None else {}
    if isinstance(node, list):
        for index, item in enumerate(node):
            _check(item, f"{key}[{index}]", allowed, nothing)
    if not isinstance(node, dict):
        return
    for name, item in node.items():
        _check(item, f"{key}.{name}", allowed, nothing)
    if "_target_" in node:
        target = locate(node["_target_"], f"{key}._target_", allowed)
        check_arguments(target, node, key, given)


def locate(path: Any, key: str, allowed: Sequence[str]) -> type:
    """The class at a dotted path, refused unless path and class are both in the packages."""

    def permitted(name: str) -> bool:
        return any(
            name == package or name.startswith(f"{package}.") for package in allowed
        )

    refusal = ConfigError(
        f"{key}={path!r}: only classes of {', '.join(allowed)} may be named here"
    )
    if not isinstance(path, str) or not permitted(path):
        raise refusal
    try:
        target = hydra.utils.get_object(path)
    except Exception as error:
        raise ConfigError(f"{key}={path!r}: there is no such class") from error
    if not inspect.isclass(target) or not permitted(target.__module__):
        raise refusal
    return target


def check_arguments(
    target: Callable[..., Any],
    node: Mapping[str, Any],
    key: str,
    given: Mapping[str, Any] | None = MappingProxyType({}),
) -> None:
    """Check keys and types of a node, and with `given` what is missing, for a class."""
    _refuse_unknown(target, node, key)
    parameters = inspect.signature(target).parameters
    arguments = {name: value for name, value in node.items() if name not in HYDRAS}
    for name, value in arguments.items():
        if name in parameters:
            _check_type(target, name, value, _below(key, name))
    if given is not None and not node.get("_partial_", False):
        for name, parameter in parameters.items():
            required = parameter.default is parameter.empty and parameter.kind not in (
                parameter.VAR_KEYWORD,
                parameter.VAR_POSITIONAL,
            )
            if required and name not in arguments and name not in given:
                where = _below(key, name)
                raise ConfigError(f"{where}: missing, give it as {where}=<value>")


def _refuse_unknown(
    target: Callable[..., Any],
    names: Iterable[str],
    key: str,
    given: Collection[str] = (),
    more: Collection[str] = (),
) -> None:
    """ConfigError, with the nearest name, for a key that nothing would read."""
    parameters, variadic = _parameters(target)
    decided = {*given, *IGNORED.get(_path(target), ())}
    known = (parameters | set(more)) - decided
    for name in names:
        if name in decided:
            raise ConfigError(
                f"{_below(key, name)}: not a setting here, the program decides it"
            )
        open_to_all = variadic and not name.startswith("_")
        if name not in known | HYDRAS and not open_to_all:
            raise ConfigError(
                f"{_below(key, name)}: unknown key, {nearest(name, known)}"
            )


def _parameters(target: Callable[..., Any]) -> tuple[set[str], bool]:
    """Return the names of all arguments, and whether there may be others.

    Names that a class passes on are those of their reader, where that is known and there.
    """
    parameters = inspect.signature(target).parameters
    names = {p.name for p in parameters.values() if p.kind is not p.VAR_KEYWORD}
    if len(names) == len(parameters):
        return names, False
    for path in map(_path, inspect.getmro(target) if inspect.isclass(target) else ()):
        if path in READS:
            reader, *taken = READS[path]
            with suppress(Exception):  # a package that is not installed
                passed, variadic = _parameters(hydra.utils.get_object(reader))
                return names | passed - set(taken), variadic
    return names, True


def _path(target: Callable[..., Any]) -> str:
    return f"{target.__module__}.{target.__qualname__}"


def _below(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _check_type(target: Callable[..., Any], name: str, value: Any, key: str) -> None:
    if _is_open(value):
        return  # not known yet: an interpolation, or an object with checks of its own
    hint = _hint(target, name)
    try:
        try:
            check_type(value, hint)
        except TypeCheckError:  # YAML has lists where a signature may ask for a tuple
            check_type(tuple(value) if isinstance(value, list) else value, hint)
        if isinstance(value, bool) and not _admits_bool(hint):
            raise TypeCheckError("is bool")
    except TypeCheckError as error:
        raise ConfigError(
            f"{key}={value}: expected {_words(hint)}, got {type(value).__name__}"
        ) from error


def _hint(target: Callable[..., Any], name: str) -> Any:
    """Return the type of one constructor argument, Any if it is not known at run time.

    Each argument is resolved by itself. One that names a class imported for type checkers
    alone (`if TYPE_CHECKING:`), as WandbLogger has, leaves the checks of the others.
    """
    constructor: Any = inspect.unwrap(target.__init__)
    try:
        annotation = getattr(constructor, "__annotations__", {}).get(name, Any)
        only = SimpleNamespace(__annotations__={name: annotation})
        names = getattr(constructor, "__globals__", {})
        hint = typing.get_type_hints(only, globalns=names)[name]
        return Mapping if hint is DictConfig else hint  # launchers take such nodes
    except (NameError, AttributeError):
        return Any


def _words(hint: Any) -> str:
    """A type as one reads it; float | Literal[...] is a typing.Union and reads worse."""
    if typing.get_origin(hint) is typing.Union:
        return " or ".join(map(_words, typing.get_args(hint)))
    return inspect.formatannotation(hint).replace("collections.abc.", "")


def _is_open(value: Any) -> bool:
    if isinstance(value, dict):
        return "_target_" in value or any(map(_is_open, value.values()))
    if isinstance(value, list):
        return any(map(_is_open, value))
    return isinstance(value, str) and ("${" in value or value == "???")


def _admits_bool(hint: Any) -> bool:
    return hint in (bool, Any, object) or any(map(_admits_bool, typing.get_args(hint)))
