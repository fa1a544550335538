"""Find the pictures of each split of a folder, and pair images with their targets."""

import csv
import logging
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imex_experiments.data.folder.pictures import KNOWN, SUFFIXES
from imex_experiments.errors import DataError
from imex_experiments.files import read_regular

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
MOST_FILES = 2**22
MOST_TABLE = 2**26
"""Most entries of a folder, and bytes of a table of groups."""


@dataclass(frozen=True)
class Pair:
    """The files of an image and of its target, and their common name."""

    name: str
    image: Path
    target: Path


@dataclass(frozen=True)
class Division:
    """The way in which one folder is divided into splits.

    `shares` are those of training, validation and test. With `folds`, the pictures are
    dealt into so many parts: part `fold` is the test split, the next one is the validation
    split, and all others train. `seed` decides on the order. Raises ValueError for values
    that no folder can satisfy.
    """

    shares: Sequence[float] | None = None
    fold: int | None = None
    folds: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.fold is None) != (self.folds is None):
            raise ValueError(f"fold={self.fold} and folds={self.folds}: give both")
        if self.shares is not None and self.folds is not None:
            raise ValueError("split and folds exclude each other; give one of both")
        if self.folds is not None and self.fold is not None:
            if self.folds < 3:
                raise ValueError(f"folds must be >= 3, got {self.folds}")
            if not 0 <= self.fold < self.folds:
                raise ValueError(
                    f"fold must be in 0 ... {self.folds - 1}, got {self.fold}"
                )
        if self.shares is not None:
            sound = len(self.shares) == 3 and min(self.shares) >= 0
            if not sound or abs(sum(self.shares) - 1) > 1e-6 or self.shares[0] == 0:
                raise ValueError(
                    f"split must be the shares of train, val and test, with sum 1, got "
                    f"{list(self.shares)}"
                )

    def __bool__(self) -> bool:
        return self.shares is not None or self.folds is not None

    def of(self, groups: Sequence[str]) -> dict[str, list[int]]:
        """Return split -> indices of pictures, none of whose groups is in two splits."""
        names = sorted(set(groups))
        order = np.random.default_rng(self.seed).permutation(len(names))
        counted = Counter(groups)
        sizes = np.array([counted[name] for name in names])[order]
        place = (np.cumsum(sizes) - sizes / 2) / sizes.sum()  # of a group, in 0 ... 1
        if self.folds is not None and self.fold is not None:
            part = (place * self.folds).astype(int)
            kind = (part - self.fold) % self.folds
            number = np.select([kind == 0, kind == 1], [2, 1], 0)
        else:
            number = self._by_shares(place)
        where = {names[g]: SPLITS[n] for g, n in zip(order, number, strict=True)}
        return {
            split: [i for i, group in enumerate(groups) if where[group] == split]
            for split in SPLITS
        }

    def _by_shares(self, place: NDArray[np.float64]) -> NDArray[np.intp]:
        """Return the number of the split for each place in 0 ... 1, in increasing order.

        Each split with a share gets a group, if there are enough.
        """
        assert self.shares is not None
        bounds = np.cumsum(self.shares)[:2]
        cuts = np.searchsorted(place, bounds)
        _, val, test = (int(share > 0) for share in self.shares)
        second = min(max(int(cuts[1]), 1 + val), len(place) - test)
        first = max(1, min(int(cuts[0]), second - val))
        return np.searchsorted([first, second], np.arange(len(place)), side="right")


def find_splits(
    root: Path,
    images: str,
    targets: str,
    division: Division,
    groups: str | None = None,
) -> dict[str, list[Pair]]:
    """Return the pairs of each split, in the order of their names.

    `images` and `targets` are patterns of paths below `root`, see `_listed`. With a
    division `{split}` is left out of both, and `groups` may name a table whose rows hold a
    name and its group. Raises DataError for a missing folder, an image without a target
    or the reverse, and for an empty split; a missing test split is logged.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give data.root=<folder>")
    if not division:
        found = {split: _pairs(root, images, targets, split) for split in SPLITS}
    else:
        pairs = _pairs(root, images, targets, "")
        names = [pair.name for pair in pairs]
        of = _groups(root, groups, names)
        found = {
            split: [pairs[index] for index in chosen]
            for split, chosen in division.of(of).items()
        }
    for split in SPLITS:
        if not found[split]:
            _report_empty(root, split, images, division)
    return {split: pairs for split, pairs in found.items() if pairs}


def _report_empty(root: Path, split: str, images: str, division: Division) -> None:
    """Log a missing test split. Raises DataError for another one, which is needed."""
    where = root if division else _place(root, images, split)[0]
    if split == "test":
        log.warning("%s: no test split, so there are no test metrics", where)
        return
    remedy = (
        "give it a larger share" if division else "or give data.split=[0.7,0.2,0.1]"
    )
    reason = "no pictures" if where.is_dir() else "no such folder"
    raise DataError(f"{where}: {reason} for the split {split!r}; {remedy}")


def _pairs(root: Path, images: str, targets: str, split: str) -> list[Pair]:
    """Return the images and targets of one split, paired by their names."""
    found = [_listed(root, pattern, split) for pattern in (images, targets)]
    for pattern, partners in ((images, found[1]), (targets, found[0])):
        if partners and not (place := _place(root, pattern, split)[0]).is_dir():
            raise DataError(
                f"{place}: no such folder, but there are its partners; say where it is "
                "with data.images, data.labels or data.depths"
            )
    both = set(found[1].values())  # `{name}` alone means these files too
    found[0] = {name: path for name, path in found[0].items() if path not in both}
    lonely = sorted(found[0].keys() ^ found[1].keys())
    if lonely:
        kind = 0 if lonely[0] in found[0] else 1
        place = _place(root, (targets, images)[kind], split)[0]
        raise DataError(
            f"{found[kind][lonely[0]]}: no partner of the name {lonely[0]!r} in {place} "
            f"({len(found[0])} images, {len(found[1])} targets); add it, or take this out"
        )
    return [Pair(name, found[0][name], found[1][name]) for name in sorted(found[0])]


def _place(root: Path, pattern: str, split: str) -> tuple[Path, str]:
    """Return the folder that a pattern means, and the pattern of the files in it."""
    path = Path(pattern.replace("{split}", split or "."))
    if "{name}" in path.name:
        return root / path.parent, path.name
    return root / path, "{name}"


def _listed(root: Path, pattern: str, split: str) -> dict[str, Path]:
    """Return name -> file for a pattern such as `{split}/images/{name}_rgb`.

    `{split}` is the name of the split. `{name}` is the name that an image and its target
    have in common. Without it, the pattern is a folder, and the name of a file is what
    precedes its suffix. A file of no known format is left out with a warning, and a hidden
    one without.
    """
    folder, stem = _place(root, pattern, split)
    if not folder.is_dir():
        return {}
    matches = re.compile(re.escape(stem).replace(r"\{name\}", "(.+)"))
    found: dict[str, Path] = {}
    foreign: list[str] = []
    for number, entry in enumerate(sorted(os.scandir(folder), key=lambda e: e.name)):
        if number >= MOST_FILES:
            raise DataError(f"{folder}: more than {MOST_FILES:,} entries")
        if entry.name.startswith("."):
            continue
        path = folder / entry.name
        if path.suffix.lower() not in SUFFIXES or entry.is_dir():
            foreign.append(entry.name)
        elif name := matches.fullmatch(path.stem):
            if name[1] in found:
                raise DataError(
                    f"{path}: {found[name[1]].name} has the same name; keep one of them"
                )
            found[name[1]] = path
    if foreign:
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        log.warning(
            "%s: skipped %s%s, not of %s", folder, ", ".join(foreign[:3]), more, KNOWN
        )
    return found


def _groups(root: Path, groups: str | None, names: Sequence[str]) -> list[str]:
    """Return the group of each name; without a table each picture is its own group.

    `groups` is `<file>:<column>`; the first column of the file has the names.
    """
    if groups is None:
        return list(names)
    file, _, column = groups.rpartition(":")
    path = root / file
    of: Mapping[str, str]
    try:
        lines = read_regular(path, MOST_TABLE).decode("utf-8-sig").splitlines()
        rows = list(csv.DictReader(lines))
        key = next(iter(rows[0]))
        of = {Path(row[key]).stem: str(row[column]) for row in rows}
    except (OSError, ValueError, KeyError, IndexError, csv.Error, TypeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(
            f"{path}: not a table of names with a column {column!r} ({reason}); give "
            "data.groups=<file>.csv:<column>"
        ) from error
    missing = [name for name in names if name not in of]
    if missing:
        raise DataError(f"{path}: no row for the picture {missing[0]!r}; add it")
    return [of[name] for name in names]
