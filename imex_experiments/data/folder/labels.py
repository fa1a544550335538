"""Turn the labels in files into classes, and name the classes.

Shapes: labels (H, W), integers in files, uint8 classes afterwards.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imex_experiments.errors import DataError
from imex_experiments.files import read_regular

IGNORED = 255
"""The label of pixels that no loss and no score counts."""

MOST_CLASSES = IGNORED
MOST_NAMES = 2**16
"""Most bytes of a file of names."""

NAME = re.compile(r"\w[\w .()+-]{0,99}")
"""Allowed names, since metrics are named after classes."""


def class_names(classes: int | str | Sequence[Any]) -> list[str]:
    """Return the names of classes, given as their number, as names, or as a file.

    The file has one name a line. Raises ValueError for fewer than 2 classes, more than
    255, repeated names, and names that no metric can have. Raises DataError for a file
    that is not readable.
    """
    if isinstance(classes, int):
        names = [f"class {number}" for number in range(min(classes, MOST_CLASSES + 1))]
    elif isinstance(classes, str):
        names = _names_in(Path(classes).expanduser())
    else:
        names = [str(name).strip() for name in classes]
    if not 2 <= len(names) <= MOST_CLASSES:
        raise ValueError(
            f"classes must be 2 to {MOST_CLASSES} classes, got {len(names)}"
        )
    for name in names:
        if not NAME.fullmatch(name):
            raise ValueError(
                f"classes: {name!r} is no name; give letters, digits, spaces and .()+-"
            )
        if names.count(name) > 1:
            raise ValueError(f"classes: {name!r} is there twice")
    return names


def _names_in(path: Path) -> list[str]:
    try:
        lines = read_regular(path, MOST_NAMES).decode("utf-8").splitlines()
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: no such file; data.classes is a number, [names], or a file of them"
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a file of names ({error})") from error
    return [line.strip() for line in lines if line.strip()]


@dataclass(frozen=True)
class LabelMap:
    """The way from the values in files to classes 0 ... `classes` - 1, or IGNORED.

    Values of at least `threshold` become 1 and all others 0, so that soft edges are cut.
    Then `mapping` names the class of each value; without it, values are the classes. The
    values `ignored` are left out of loss and scores. Raises ValueError for a class that
    does not exist, and for a mapping that the threshold leaves no value for.
    """

    classes: int
    mapping: Mapping[int, int] | None = None
    ignored: tuple[int, ...] = ()
    threshold: float | None = None

    def __post_init__(self) -> None:
        for value, label in (self.mapping or {}).items():
            if not 0 <= label < self.classes:
                raise ValueError(
                    f"label_map: {value} becomes {label}, the classes are 0 ... "
                    f"{self.classes - 1}"
                )
        if self.threshold is not None:
            if not set(self.mapping or {}) <= {0, 1}:
                raise ValueError(
                    f"threshold={self.threshold} makes labels of 0 and 1; label_map must "
                    f"map these, got {dict(self.mapping or {})}"
                )
            if self.ignored:
                raise ValueError("threshold and ignore_label exclude each other")

    def __call__(self, values: NDArray[Any], path: Path) -> NDArray[np.uint8]:
        """Return the classes of labels read from a file.

        Raises DataError, with the file and a remedy, for a value without a class.
        """
        if self.threshold is not None:
            values = (values >= self.threshold).astype(np.uint8)
        found, where = _distinct(values)
        meant = [self._class_of(int(value)) for value in found]
        if None in meant:
            unknown = [
                v for v, label in zip(found, meant, strict=True) if label is None
            ]
            raise DataError(f"{path}: {self._complaint(int(unknown[-1]), found)}")
        return np.array(meant, np.uint8)[where].reshape(values.shape)

    def _class_of(self, value: int) -> int | None:
        if value in self.ignored:
            return IGNORED
        if self.mapping is not None:
            return self.mapping.get(value)
        return value if 0 <= value < self.classes else None

    def _complaint(self, value: int, found: NDArray[Any]) -> str:
        known = sorted(self.mapping) if self.mapping is not None else None
        if known:
            text = f"label {value} is not in data.label_map, which has {known}"
        else:
            text = f"label {value} is none of the classes 0 ... {self.classes - 1}"
        if self.classes == 2 and len(found) > 3:  # a mask with soft edges
            return f"{text}; it has {len(found)} greys, give data.threshold=128"
        remedies = f"data.ignore_label={value}, or its class in data.label_map"
        return f"{text}; give {remedies}, or other data.classes"


def _distinct(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the distinct values in order, and the place of each value among them."""
    if values.dtype != np.uint8:  # sorts, which takes ten times as long
        return np.unique(values, return_inverse=True)
    present = np.bincount(values.ravel(), minlength=256) > 0
    return np.flatnonzero(present), (np.cumsum(present) - 1)[values]
