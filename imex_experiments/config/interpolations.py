"""Flatten a configuration to dotted keys, and bound the size of its interpolations."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from imex_experiments.errors import ConfigError


def dotted(node: object) -> dict[str, object]:
    """Return the leaves of a configuration by dotted key, interpolations unresolved."""
    if isinstance(node, DictConfig):
        node = OmegaConf.to_container(node, resolve=False)
    return dict(flat(node, lists=False))


def flat(node: Any, prefix: str = "", lists: bool = True) -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and leaves of plain containers.

    With `lists`, the items of a list are leaves that have its key; else a list is a leaf.
    """
    if isinstance(node, dict):
        for key, value in node.items():
            yield from flat(value, f"{prefix}.{key}" if prefix else str(key), lists)
    elif lists and isinstance(node, list | tuple):
        for value in node:
            yield from flat(value, prefix)
    else:
        yield prefix, node


KNOWN = re.compile(
    r"\$\{(?!hydra\.)\w+(\.\w+)*\}|\$\{hydra:runtime\.(output_dir|choices\.\w+)\}"
)
"""Interpolations in the configuration of a run: of its own keys, and two of Hydra's."""

REFERENCE = re.compile(r"\$\\*\{")
"""The start of any interpolation, also of one that a backslash escapes."""


MOST_UNFOLDED = 2**17
"""Largest size of a resolved configuration, in characters."""


def check_unfolding(content: dict[str, Any]) -> None:
    """Raise ConfigError for interpolations that are circular, or large once resolved.

    Nested interpolations may grow exponentially, so the size is computed without them
    being resolved.
    """
    known: dict[str, int | None] = {}

    def at(name: str) -> Any:
        node: Any = content
        for part in name.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        return node

    def size(node: Any) -> int:
        total = 1 + (len(node) if isinstance(node, str) else 0)
        names = KNOWN.finditer(node) if isinstance(node, str) else ()
        for name in (match[0][2:-1] for match in names):
            if name not in known:
                known[name] = None  # marks a circle
                known[name] = size(at(name))
            if (unfolded := known[name]) is None:
                raise ConfigError(f"{name}: an interpolation that leads to itself")
            total += unfolded
        children: Iterable[Any] = ()
        if isinstance(node, dict | list):
            children = node.values() if isinstance(node, dict) else node
        return total + sum(map(size, children))

    try:
        total = size(content)
    except RecursionError:
        total = 2**63
    if total > MOST_UNFOLDED:
        raise ConfigError(f"interpolations that unfold to {total:,} bytes or more")
