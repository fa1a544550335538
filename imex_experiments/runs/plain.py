"""Read YAML and JSON of a run folder, of bounded size and without resolving anything."""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from omegaconf._utils import get_yaml_loader

from imex_experiments.errors import CheckpointError
from imex_experiments.files import read_regular
from imex_experiments.runs.layout import BEST, CSV, FIGURES, HYDRA, TENSORBOARD

MOST_YAML = 2**17
MOST_JSON = 2**20
MOST_DEPTH = 32
MOST_NODES = 20_000
MOST_ENTRIES = 100_000
LARGEST = 2**63
"""Most bytes of a file, levels and nodes in it, entries of a folder; largest integer."""


def read_yaml(path: Path) -> Any:
    """Return the plain content of a YAML file, with interpolations unresolved.

    Raises CheckpointError for a file that is not regular, and as `yaml_in` does.
    """
    with _reading(path):
        return yaml_in(read_regular(path, MOST_YAML).decode(), path)


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file. Raises CheckpointError for anything else."""
    with _reading(path):
        return json_in(read_regular(path, MOST_JSON).decode(), path)


def yaml_in(text: str, source: Path) -> Any:
    """Return the plain content of YAML text, with interpolations unresolved.

    Raises CheckpointError, which names the source, for text that is too large or nested
    too deeply, for aliases and tags, and for values other than text, numbers, booleans
    and null.
    """
    with _reading(source):
        if len(text) > MOST_YAML:
            raise ValueError(f"YAML of more than {MOST_YAML:,} characters")
        _measure(text)
        content = yaml.load(text, get_yaml_loader())  # a SafeLoader
        _plain(content)
    return content


def json_in(text: str, source: Path) -> dict[str, Any]:
    """Return the object in JSON text. Raises CheckpointError for anything else."""
    with _reading(source):
        if len(text) > MOST_JSON:
            raise ValueError(f"JSON of more than {MOST_JSON:,} characters")
        content = json.loads(text)
        if not isinstance(content, dict):
            raise ValueError("not an object")
        _plain(content)
    return content


@contextmanager
def _reading(source: Path) -> Iterator[None]:
    """Turn errors of reading a file in the body into a CheckpointError."""
    try:
        yield
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise CheckpointError(f"{source}: not readable ({reason[:200]})") from error


def _measure(text: str) -> None:
    """Raise ValueError for aliases and for deep or large YAML, before it is built."""
    depth = 0
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for number, event in enumerate(yaml.parse(text, Loader=loader)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("it has an alias, which no run writes")
        if depth > MOST_DEPTH or number > MOST_NODES:
            raise ValueError(f"more than {MOST_DEPTH} levels or {MOST_NODES:,} nodes")


def _plain(node: Any) -> None:
    """Raise ValueError for values other than text, numbers, booleans and null."""
    if isinstance(node, dict):
        if not all(isinstance(key, str | int) for key in node):
            raise ValueError("a key that is no text and no number")
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            _plain(item)
    elif isinstance(node, int) and abs(node) >= LARGEST:
        raise ValueError("an integer of more than 64 bits")
    elif not isinstance(node, str | int | float | None):
        raise ValueError(f"a {type(node).__name__}, which no run writes")


def check_folder(folder: Path) -> None:
    """Raise CheckpointError for a link, a FIFO or a device in the folders of a run.

    Folders of other packages, such as wandb's, are not checked.
    """
    ours = set(map(str, (HYDRA, BEST.parent, FIGURES, TENSORBOARD, CSV)))
    count = 0
    for place, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path, count = Path(place, name), count + 1
            mode = path.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                kind = "a link" if stat.S_ISLNK(mode) else "not a regular file"
                raise CheckpointError(
                    f"{path}: {kind}, which no run makes; put the file itself there"
                )
            if count > MOST_ENTRIES:
                raise CheckpointError(f"{folder}: more than {MOST_ENTRIES:,} entries")
        if str(HYDRA) in folders:
            folders[:] = [name for name in folders if name in ours]
