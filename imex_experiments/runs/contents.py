"""Check that a checkpoint holds plain containers of numbers, as a run writes them."""

import io
import random
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imex_experiments.errors import CheckpointError

LONGEST = 10_000
"""Most characters of a string."""

COLUMN = re.compile(r"epoch|step|seconds|lr|train/loss|val/\w[\w ./()+-]{0,99}")
"""Names of the columns of metrics.csv."""

DIGEST = re.compile("[0-9a-f]{64}")
"""SHA-256 in hexadecimal digits."""


def check_container(content: bytes) -> None:
    """Raise ValueError unless the bytes are an uncompressed zip file, as torch.save writes.

    torch.load accepts compressed records, which may be a thousand times as large.
    """
    if not zipfile.is_zipfile(io.BytesIO(content)):
        raise ValueError("not in the format of torch.save")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        records = archive.infolist()
    stored = all(record.compress_type == zipfile.ZIP_STORED for record in records)
    if not stored or sum(record.file_size for record in records) > len(content):
        raise ValueError("compressed, which no run writes")


def check_contents(checkpoint: Any) -> None:
    """Raise ValueError with its name for the first value that no run writes."""
    if not isinstance(checkpoint, dict):
        raise ValueError(f"{type(checkpoint).__name__} inside")
    for name, value in _leaves(checkpoint):
        _check_leaf(name, value)
    for field, check in FIELDS.items():
        if checkpoint.get(field) is not None:
            _require(check(checkpoint[field]), field)
    for name, state in (checkpoint.get("callbacks") or {}).items():
        check = CALLBACKS.get(name, lambda state: True)
        with _explaining(f"callbacks.{name}"):
            _require(check(state), f"callbacks.{name}")


def require_alike(found: Any, expected: Any, name: str) -> None:
    """Raise ValueError with its name for the first value that is of another type.

    `expected` is the state of a new part. The state of another version of torch may lack
    keys of it, but has no others.
    """
    if isinstance(expected, dict) and all(isinstance(key, str) for key in expected):
        sound = isinstance(found, dict) and found.keys() <= expected.keys()
        for key in found if sound else ():
            require_alike(found[key], expected[key], f"{name}.{key}")
    elif isinstance(expected, list | tuple):
        sound = isinstance(found, list | tuple) and len(found) == len(expected)
        for index, pair in enumerate(
            zip(found, expected, strict=True) if sound else ()
        ):
            require_alike(*pair, f"{name}.{index}")
    elif isinstance(expected, str | dict):
        sound = isinstance(found, type(expected))
    else:
        sound = isinstance(found, int | float | Tensor | None)
    _require(sound, name)


@contextmanager
def restoring(name: str) -> Iterator[None]:
    """Turn errors of restoring a state in the body into a CheckpointError."""
    try:
        with _explaining(name):
            yield
    except ValueError as error:
        raise CheckpointError(f"checkpoint: {error}; start a new run") from error


@contextmanager
def _explaining(name: str) -> Iterator[None]:
    try:
        yield
    except (LookupError, TypeError, AttributeError, RuntimeError, OverflowError) as e:
        raise ValueError(f"{name} is not what a run writes: {e!r}") from e


def _require(sound: bool, name: str) -> None:
    if not sound:
        raise ValueError(f"{name} is not what a run writes")


def _leaves(node: Any) -> Iterator[tuple[str, Any]]:
    """Yield names and values of all leaves; a shared container is visited once."""
    waiting, seen = [("", node)], set()
    while waiting:
        name, node = waiting.pop()
        if not isinstance(node, dict | list | tuple | set):
            yield name, node
        elif id(node) not in seen:
            seen.add(id(node))
            items = node.items() if isinstance(node, dict) else enumerate(node)
            for key, item in items:
                if not isinstance(key, str | int):
                    raise ValueError(f"{name} has a key that is no text or number")
                waiting.append((f"{name}.{key}" if name else str(key), item))


def _check_leaf(name: str, value: Any) -> None:
    if isinstance(value, Tensor):
        sound = value.layout is torch.strided and not value.is_meta
        sound = sound and value.nbytes <= value.untyped_storage().nbytes()
    elif isinstance(value, str):
        sound = len(value) <= LONGEST
    elif isinstance(value, int):
        sound = abs(value) < 2**63
    else:
        sound = isinstance(value, float | None)
    if not sound:
        raise ValueError(f"{name[:100]} is not what a run writes")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _are(kind: type, node: Any) -> bool:
    items = node.values() if isinstance(node, dict) else node
    return isinstance(node, dict | list) and all(isinstance(x, kind) for x in items)


def _only_counts(node: Any) -> bool:
    """Return True if the state of loops has only counts: steps, epochs, batches."""
    return isinstance(node, dict) and all(
        isinstance(value, int) and value >= 0 for _, value in _leaves(node)
    )


def _history(state: Mapping[str, Any]) -> bool:
    rows = [*state["rows"], state.get("last") or {}]
    if not all(isinstance(row, dict) for row in rows):
        return False
    rows = [row for row in rows if row]
    columns = rows[0].keys() if rows else ()
    return (
        all(isinstance(name, str) and COLUMN.fullmatch(name) for name in columns)
        and all(row.keys() == columns for row in rows)
        and all(_is_number(value) for row in rows for value in row.values())
        and all(_is_number(loss) for loss in state["losses"])
        and _is_number(state["seconds"])
        and _is_count(state.get("length", 0))
        and bool(DIGEST.fullmatch(state.get("sha256", "0" * 64)))
    )


def _random_state(state: Mapping[str, Any]) -> bool:
    version, words, gauss = state["python"]
    random.Random().setstate((version, tuple(words), gauss))
    np.random.RandomState().set_state(tuple(state["numpy"]))
    torch.Generator().set_state(state["torch"])
    return _are(Tensor, state["cuda"])


FIELDS: dict[str, Callable[[Any], bool]] = {
    "global_step": _is_count,
    "epoch": _is_count,
    "state_dict": lambda node: isinstance(node, dict) and _are(Tensor, node),
    "loops": _only_counts,
    "callbacks": lambda node: isinstance(node, dict) and _are(dict, node),
    "optimizer_states": lambda node: isinstance(node, list) and _are(dict, node),
    "lr_schedulers": lambda node: isinstance(node, list) and _are(dict, node),
    "hyper_parameters": lambda node: isinstance(node, dict),
}
"""Field of Lightning -> check of its value."""

CALLBACKS: dict[str, Callable[[Any], bool]] = {
    "History": _history,
    "Checkpoints": lambda state: _is_number(state["best_score"]),
    "SolverLog": lambda state: list(map(_is_number, state["counts"])) == [True] * 3,
    "RandomState": _random_state,
}
"""Callback of this package -> check of its state. States of others have plain leaves."""
