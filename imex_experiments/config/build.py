"""Build objects from configuration nodes: allowed classes only, checked before any call."""

import inspect
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import hydra
from hydra._internal.utils import _locate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from imex_experiments.config.types import check_value
from imex_experiments.errors import ConfigError, nearest, one_line

TRAINING = ("imex_experiments", "torch.optim", "pytorch_lightning")
"""Packages whose classes a configuration may name."""

REBUILDING = ("imex_experiments",)
"""Packages whose classes may be named when a network is rebuilt from a run folder."""

OTHERS = {*(name.partition(".")[0] for name in TRAINING), "hydra", "omegaconf"}
"""Packages that no user has made."""

KWARGS_READERS = {
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
    "pytorch_lightning.strategies.ddp.DDPStrategy": (
        "torch.nn.parallel.DistributedDataParallel",
        *("module", "device_ids"),
    ),
    "pytorch_lightning.strategies.fsdp.FSDPStrategy": (
        "torch.distributed.fsdp.FullyShardedDataParallel",
        *("module", "process_group", "device_id"),
    ),
    "pytorch_lightning.profilers.pytorch.PyTorchProfiler": ("torch.profiler.profile",),
}
"""Class with `**kwargs` -> the callable that receives them, and its parameters that the
class passes itself. Every other class with `**kwargs` takes its named parameters alone."""

IGNORED = {"torch.optim.lr_scheduler.OneCycleLR": ("epochs", "steps_per_epoch")}
"""Class -> parameters without effect beside those that this package passes."""

HYDRA_KEYS = {"_target_", "_partial_"}
"""Keys that Hydra defines for every node, beside the arguments of its class."""


@dataclass(frozen=True)
class Part:
    """The requirements for a node of the configuration.

    `kind` is the base class. `given` are arguments that this package passes, so that a
    setting of that name is refused. `more` are keys of the node that are no arguments of
    its class. The class of a `partial` node is called later, with more arguments.
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
    """Build the object that a configuration node describes; return None for an empty node.

    `arguments` are added to those of the node. All classes and types are checked before
    the first constructor runs. Raises ConfigError with key and value for a class outside
    of the allowed packages, an unknown or missing argument, a wrong type, and for every
    ValueError of a constructor.
    """
    if not node:
        return None
    plain = _resolved(node, key)
    _check(plain, key, allowed, given=arguments)
    with refusing(key):
        return _made(plain, arguments)


def _made(node: Any, more: Mapping[str, Any] = MappingProxyType({})) -> Any:
    """Instantiate a checked plain node, passing the arguments `more` to its outer class.

    `hydra.utils.instantiate` takes ten times as long, mostly for copies.
    """
    if isinstance(node, list):
        return [_made(item) for item in node]
    if not isinstance(node, dict):
        return node
    found = {name: _made(item) for name, item in node.items() if name not in HYDRA_KEYS}
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

    Raises ConfigError as `build` does, and for a node that does not meet `part`. A node
    that passed is not checked again, because the points of a sweep share most nodes.
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
    """Turn errors of a constructor in the body into a ConfigError that names the key.

    These are refused values, and a missing package, whose message names the remedy.
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
    """Check all nodes at and below a key.

    `given` are arguments that are passed to the outer class. With None a missing argument
    is no error, since it may be passed later.
    """
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
    """Return the class at a dotted path.

    Raises ConfigError unless both the path and the module that defines the class lie in
    the allowed packages.
    """

    refusal = ConfigError(
        f"{key}={path!r}: only classes of {', '.join(allowed)} may be named here"
        f"{hint_of_allow(path)}"
    )
    if not isinstance(path, str) or not lies_in(path, allowed):
        raise refusal
    try:
        target = _locate(path)  # hydra.utils.get_object logs what we report
    except Exception as error:
        reason = _reason(path, error)
        raise ConfigError(f"{key}={path!r}: there is no such class{reason}") from error
    if not inspect.isclass(target) or not lies_in(target.__module__, allowed):
        raise refusal
    return target


def lies_in(path: str, packages: Iterable[str]) -> bool:
    """Return True if a dotted path is one of the packages, or in one of them."""
    return any(path == name or path.startswith(f"{name}.") for name in packages)


def hint_of_allow(path: Any) -> str:
    """Return the remedy for the path of a class in a package of the user's own."""
    package = str(path).partition(".")[0]
    if not package.isidentifier() or not may_be_own(package):
        return ""
    return f"; if {package} is a package of yours, give allow=[{package}]"


def may_be_own(path: str) -> bool:
    """Return False for a path in Python's library or in a package of this program."""
    return path.partition(".")[0] not in OTHERS | sys.stdlib_module_names


def _reason(path: str, error: Exception) -> str:
    """Return why a module with a class could not be imported, if it is there."""
    cause = error.__cause__ or error
    absent = isinstance(cause, ModuleNotFoundError) and lies_in(
        path, [cause.name or ""]
    )
    return "" if absent else f" ({one_line(cause)})"


def check_arguments(
    target: Callable[..., Any],
    node: Mapping[str, Any],
    key: str,
    given: Mapping[str, Any] | None = MappingProxyType({}),
) -> None:
    """Check the keys and types of a node against the parameters of a callable.

    With `given`, the names of arguments passed beside it, missing ones are refused too.
    """
    _refuse_unknown(target, node, key)
    parameters = inspect.signature(target).parameters
    arguments = {name: value for name, value in node.items() if name not in HYDRA_KEYS}
    for name, value in arguments.items():
        if name in parameters:
            check_value(target, name, value, _below(key, name))
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
    """Raise ConfigError, with the nearest name, for a key that no code reads."""
    parameters, variadic = _parameters(target)
    decided = {*given, *IGNORED.get(_path(target), ())}
    known = (parameters | set(more)) - decided
    for name in names:
        if name in decided:
            raise ConfigError(
                f"{_below(key, name)}: set by train.py, it cannot be configured"
            )
        open_to_all = variadic and not name.startswith("_")
        if name not in known | HYDRA_KEYS and not open_to_all:
            raise ConfigError(
                f"{_below(key, name)}: unknown key, {nearest(name, known)}"
            )


def _parameters(target: Callable[..., Any]) -> tuple[set[str], bool]:
    """Return the names of all parameters, and True if any other name is accepted.

    For a class of KWARGS_READERS they include the parameters of the callable that it passes its
    `**kwargs` to. Any other name is accepted where that callable is not installed.
    """
    parameters = inspect.signature(target).parameters.values()
    names = {
        p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    }
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        return names, False
    for path in map(_path, inspect.getmro(target) if inspect.isclass(target) else ()):
        if path in KWARGS_READERS:
            reader, *taken = KWARGS_READERS[path]
            try:
                passed, variadic = _parameters(hydra.utils.get_object(reader))
            except Exception:  # a package that is not installed
                return names, True
            return names | passed - set(taken), variadic
    return names, False


def _path(target: Callable[..., Any]) -> str:
    return f"{target.__module__}.{target.__qualname__}"


def _below(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
