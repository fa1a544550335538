"""Cache generated tensors in a folder, one checksummed file per set of parameters."""

import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from imex_experiments.files import open_regular

log = logging.getLogger(__name__)

PARTIAL = ".partial"
LEFTOVERS = (f"*{PARTIAL}", ".tmp*")
"""Patterns of unfinished files: those written here, and those of safetensors."""

LEFTOVER_SECONDS = 3600.0
"""Age after which an unfinished file is one of a dead process."""

Tensors = dict[str, Tensor]


Layout = Mapping[str, tuple[str | int | None, ...]]
"""Name of a tensor -> its type, in the notation of safetensors, and sizes; None for any."""

MOST_BYTES = 2**34
"""Largest file that is read: five times the images and depths of the NYU data."""


def cached(
    folder: Path,
    name: str,
    parameters: Mapping[str, Any],
    make: Callable[[], Tensors],
    layout: Layout,
    require_sound: Callable[[Tensors], None] = lambda tensors: None,
) -> Tensors:
    """Return the tensors of `make()`, cached in `<folder>/<name>-<key>.safetensors`.

    The key is a digest of the parameters, so other parameters have another file. The file
    appears only when it is complete. One process at a time makes it, and those that waited
    read it; where the file system has no locks, several make it at once. A file that is
    damaged, does not match `layout`, or has values for which `require_sound` raises
    ValueError is renamed with a warning, and made again. If the cache cannot be written,
    the tensors are returned with a warning.
    """
    key = _digest(json.dumps(parameters, sort_keys=True).encode())[:16]
    path = folder / f"{name}-{key}.safetensors"
    if (found := _kept(path, layout, require_sound)) is not None:
        return found
    with _alone_at(path):
        if (found := _kept(path, layout, require_sound)) is not None:
            return found
        tensors = make()
        try:
            _write(path, tensors)
        except OSError as error:
            log.warning(
                "cannot cache in %s (%s); going on without", folder, error.strerror
            )
        return tensors


def _kept(
    path: Path, layout: Layout, require_sound: Callable[[Tensors], None]
) -> Tensors | None:
    """Return the tensors of a file, None if there is none; a damaged one is renamed."""
    if not path.exists():
        return None
    try:
        tensors = _read(path, layout)
        require_sound(tensors)
        return tensors
    except (SafetensorError, OSError, ValueError) as error:
        aside = path.with_suffix(".damaged")
        log.warning("%s is damaged (%s); set aside as %s", path, error, aside.name)
        path.replace(aside)
        return None


@contextmanager
def _alone_at(path: Path) -> Iterator[None]:
    """Wait until no other process makes the file, where folder and file system allow it.

    New folders that stay empty, because the file could not be made, are removed.
    """
    lock = path.with_name(f".{path.name}.lock{PARTIAL}")
    new = [folder for folder in path.parents if not folder.exists()]
    with ExitStack() as held:
        held.callback(_remove_empty, new)
        with suppress(OSError, NotImplementedError):
            path.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(FileLock(lock))
            held.callback(lock.unlink, missing_ok=True)  # who waits finds the file made
        yield


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders, innermost first, until one has files or cannot be removed."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _checksum(tensors: Tensors) -> str:
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(name.encode())
        total.update(tensors[name].contiguous().numpy().data)
    return total.hexdigest()


def _read(path: Path, layout: Layout) -> Tensors:
    open_regular(path, MOST_BYTES).close()
    with safe_open(path, framework="pt") as file:
        if set(file.keys()) != set(layout):
            raise ValueError(f"it has other tensors than {sorted(layout)}")
        for name, wanted in layout.items():
            part = file.get_slice(name)
            found = (part.get_dtype(), *part.get_shape())
            known = tuple(
                f if w is None else w for f, w in zip(found, wanted, strict=False)
            )
            if found != known or len(found) != len(wanted):
                raise ValueError(f"{name} is {found}, not {wanted}")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        expected = (file.metadata() or {}).get("sha256")
    if _checksum(tensors) != expected:
        raise ValueError("its checksum differs")
    return tensors


def _write(path: Path, tensors: Tensors) -> None:
    try:
        with complete_file(path) as temporary:
            contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
            save_file(contiguous, temporary, metadata={"sha256": _checksum(tensors)})
    except SafetensorError as error:
        raise OSError(str(error)) from error


@contextmanager
def complete_file(path: Path) -> Iterator[Path]:
    """Yield a temporary file, and rename it to `path` when the body has written it.

    Several processes may do this at once: the last file remains, and all are equal.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=PARTIAL)
    os.close(handle)
    try:
        yield Path(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    """Delete the unfinished files of processes that were killed long ago."""
    for leftover in chain.from_iterable(map(folder.glob, LEFTOVERS)):
        with suppress(OSError):
            if time.time() - leftover.stat().st_mtime > LEFTOVER_SECONDS:
                leftover.unlink()
