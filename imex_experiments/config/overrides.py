"""Quote and unquote values in the grammar of Hydra's overrides."""

import re
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser


def hydra_quoted(path: Path) -> str:
    """Return a path quoted for Hydra's override grammar, with any characters."""
    text = str(path)
    if re.fullmatch(r"[\w./:+-]+", text):
        return text
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def single_value(override: str) -> str:
    """Return the value of a `key=value` override, without the quotes of Hydra's grammar."""
    return str(OverridesParser.create().parse_override(override).value())
