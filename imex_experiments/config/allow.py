"""Packages of the user's own, whose classes may be named: `allow=[my_package]`.

The person at the keyboard allows them, on the command line or in a file of `--config-dir`. A
run folder never does.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from imex_experiments.config.build import TRAINING
from imex_experiments.errors import ConfigError

ALLOW = "allow"
"""The key of the configuration."""

NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")

REPEATED = re.compile(rf"--config-dir=.*|\+*{ALLOW}=.*", re.DOTALL)
"""Arguments of a command that the next one on its run needs too."""


def allowed_by(
    cfg: Mapping[Any, Any] | DictConfig, base: Sequence[str] = TRAINING
) -> tuple[str, ...]:
    """Return the packages whose classes a configuration may name: `base`, and its own."""
    return (*base, *(cfg.get(ALLOW) or ()))


def check_packages(packages: Any) -> None:
    """Raise ConfigError for packages that are no list of names, or not installed."""
    if not isinstance(packages, Sequence) or isinstance(packages, str):
        raise ConfigError(
            f"{ALLOW}={packages}: expected a list, as {ALLOW}=[my_package]"
        )
    for name in packages:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ConfigError(
                f"{ALLOW}={name}: expected names, as {ALLOW}=[my_package]"
            )
        if find_spec(name.partition(".")[0]) is None:
            raise ConfigError(
                f"{ALLOW}=[{name}]: no such package is installed here; install it by "
                "pip install -e <its folder>, or name its folder in PYTHONPATH"
            )


def allowed_at_keyboard(arguments: Iterable[str]) -> list[str]:
    """Return the packages that the arguments of a command allow; the last one counts."""
    given = [word for word in arguments if re.match(rf"\+*{ALLOW}=", word)]
    if not given:
        return []
    value = OverridesParser.create().parse_override(given[-1]).value()
    return [str(name) for name in value] if isinstance(value, list) else []


def at_keyboard(cfg: DictConfig, hydra: Any) -> list[str]:
    """Return the arguments that a command on a run needs again: --config-dir and allow.

    `hydra` is the node of that name of the configuration.
    """
    packages = [f"{ALLOW}=[{','.join(cfg[ALLOW])}]"] if cfg.get(ALLOW) else []
    return [*config_dirs(hydra), *packages]


def config_dirs(hydra: Any) -> list[str]:
    """Return the argument `--config-dir` of a command, from its node `hydra`."""
    sources = hydra.runtime.config_sources
    return [f"--config-dir={s.path}" for s in sources if s.provider == "command-line"]


def again(arguments: Iterable[str]) -> list[str]:
    """Return those of the arguments of a command that each command on its run needs."""
    return [word for word in arguments if REPEATED.fullmatch(word)]
