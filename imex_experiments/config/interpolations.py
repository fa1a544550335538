"""Dotted keys of a configuration, and interpolations in it, all unresolved."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from imex_experiments.errors import ConfigError


def dotted(node: object, prefix: str = "") -> dict[str, object]:
    """Dotted keys of a configuration, interpolations unresolved."""
    if isinstance(node, DictConfig):
        node = OmegaConf.to_container(node, resolve=False)
    if not isinstance(node, dict):
        return {prefix: node}
    flat: dict[str, object] = {}
    for key, value in node.items():
        flat |= dotted(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


KNOWN = re.compile(
    r"\$\{(?!hydra\.)\w+(\.\w+)*\}|\$\{hydra:runtime\.(output_dir|choices\.\w+)\}"
)
"""Interpolations that a run writes: keys of the configuration, and two facts of Hydra's."""

REFERENCE = re.compile(r"\$\\*\{")
"""The begin of any interpolation, also where a backslash hides it from YAML."""


def flat(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and leaves of plain containers; items of lists have their list's key."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from flat(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(node, list | tuple):
        for value in node:
            yield from flat(value, prefix)
    else:
        yield prefix, node


MOST_UNFOLDED = 2**17
"""Characters of a configuration whose interpolations are resolved."""


def check_unfolding(content: dict[str, Any]) -> None:
    """ConfigError for interpolations that unfold to much more than they say."""
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
                known[name] = None  # it is under way
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
