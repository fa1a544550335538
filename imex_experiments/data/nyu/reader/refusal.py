"""Refuse a file, and name the types that both formats share."""

from collections.abc import Sequence
from typing import Any

import numpy as np

Response = dict[str, Any]
Arrays = tuple[np.ndarray, ...]


class RefusedError(Exception):
    """A file that cannot be used; the message is one line without its path."""


def listed(names: Sequence[str]) -> str:
    """Return names as one printable line, at most 20 of them."""
    shown = ", ".join(ascii(name)[1:-1] for name in names[:20])
    return f"{shown}, ..." if len(names) > 20 else shown or "nothing"
