"""Find what comes with the package, and the commands that a user types.

They differ between a checkout, `python train.py`, and an installed package, `imex train`.
"""

from pathlib import Path

PACKAGE = Path(__file__).parent
INSTALLED = (PACKAGE / "conf").is_dir()
"""A wheel has conf/ in the package, a checkout beside it."""

CONF = PACKAGE / "conf" if INSTALLED else PACKAGE.parent / "conf"
TRAIN = PACKAGE / "commands/door/train.py" if INSTALLED else PACKAGE.parent / "train.py"
"""The script that trains, for processes that this one starts."""


def command_line(name: str) -> str:
    """Return how a user calls a command: `python train.py`, or `imex train`."""
    if INSTALLED:
        return f"imex {name}"
    return "python train.py" if name == "train" else f"python scripts/{name}.py"


def install_line(extra: str) -> str:
    """Return how a user installs an optional dependency of pyproject.toml."""
    if INSTALLED:
        return f"pip install 'imex-experiments[{extra}]'"
    return f"pip install -c constraints.txt -e '.[{extra}]'"
