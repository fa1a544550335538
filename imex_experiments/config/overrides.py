"""Quote and unquote values in the grammar of Hydra's overrides."""

import re
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from imex_experiments.errors import ConfigError

LITERAL = re.compile(r"(null|true|false|[+-]?(inf|nan|[\d_.]+(e[+-]?\d+)?))", re.I)
"""Text that Hydra's grammar reads as something else than text, unless it is quoted."""


def override(key: str, value: Any) -> str:
    """Return `key=value` with a value of Python in Hydra's grammar.

    Raises ConfigError for a value that YAML has no type for.
    """
    return f"{key}={_written(key, value)}"


def _written(key: str, value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Path):
        return hydra_quoted(value)
    if isinstance(value, str):
        return f"'{value}'" if LITERAL.fullmatch(value) else hydra_quoted(value)
    if isinstance(value, list | tuple):
        return f"[{','.join(_written(key, item) for item in value)}]"
    if isinstance(value, dict):
        pairs = (f"{name}:{_written(key, item)}" for name, item in value.items())
        return f"{{{','.join(pairs)}}}"
    raise ConfigError(f"{key}={value}: a {type(value).__name__} is no setting")


def hydra_quoted(path: Path | str) -> str:
    """Return a path, or a text, quoted for Hydra's override grammar, with any characters."""
    text = str(path)
    if re.fullmatch(r"[\w./:+-]+", text, re.ASCII):
        return text
    # The grammar reads a backslash as itself, unless a quote follows.
    escaped = re.sub(
        r"(\\*)('|\Z)", lambda at: 2 * at[1] + at[2].replace("'", r"\'"), text
    )
    return f"'{escaped}'"


def single_value(override: str) -> str:
    """Return the value of a `key=value` override, without the quotes of Hydra's grammar."""
    return str(OverridesParser.create().parse_override(override).value())
