"""Values in the grammar of Hydra's overrides."""

import re
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser


def hydra_quoted(path: Path) -> str:
    """A path as Hydra's override grammar takes it, whatever characters it has."""
    text = str(path)
    if re.fullmatch(r"[\w./:+-]+", text):
        return text
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def single_value(word: str) -> str:
    """The value of a `key=value` word, with the quotes of Hydra's grammar taken off."""
    return str(OverridesParser.create().parse_override(word).value())
