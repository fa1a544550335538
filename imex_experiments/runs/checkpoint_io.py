"""Write checkpoints atomically with a checksum, and refuse those that do not match it.

The checksum of a checkpoint is in `<name>.sha256`, in the format of sha256sum. A new
`last.ckpt` keeps the one before it as `previous.ckpt`. While a file is replaced, its checksum
file lists the old and the new digest, so that each file matches its checksum at any moment.
"""

import hashlib
import io
import logging
import os
import re
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import CheckpointIO
from torch import nn

from imex_experiments.errors import CheckpointError, StorageError
from imex_experiments.files import (
    on_disk,
    read_regular,
    set_aside,
    staying,
    sync_folder,
    write_text,
)
from imex_experiments.runs.contents import check_container, check_contents
from imex_experiments.runs.layout import BEST, LAST, PREVIOUS

log = logging.getLogger(__name__)


STATES = {
    *("state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks"),
    "global_step",
}
"""Fields that Lightning needs to resume a training."""

MOST_BYTES = 2**33
MOST_DIGESTS = 2**12
"""Most bytes of a checkpoint, and of a checksum file."""


class VerifiedCheckpointIO(CheckpointIO):
    """The plugin by which Lightning writes and reads checkpoints with checksums."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        write_checkpoint(checkpoint, Path(path))

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return read_checkpoint(path)

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)
        checksum_of(Path(path)).unlink(missing_ok=True)


def write_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Save tensors and plain containers. Raises StorageError if it cannot be written."""
    content = io.BytesIO()
    torch.save(checkpoint, content)
    _publish(content.getvalue(), path)


def copy_checkpoint(source: Path, target: Path) -> None:
    """Copy a checkpoint to another file, with a checksum of its own."""
    _publish(source.read_bytes(), target)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Return the content of a checkpoint, tensors and plain containers only.

    Raises CheckpointError if it is missing, does not match its checksum, is no checkpoint,
    or is given by a URL.
    """
    if re.match(r"\w+:/", str(path)):
        raise CheckpointError(f"{path}: a URL; checkpoints are read from files only")
    path = Path(path)
    try:
        content = read_regular(path, MOST_BYTES)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such checkpoint") from error
    except OSError as error:
        raise CheckpointError(f"{path}: not readable ({error.strerror})") from error
    checksum = checksum_of(path)
    if not checksum.is_file():
        raise CheckpointError(
            f"{path}: not verified, {checksum.name} is missing; if you trust it, make it "
            f"there: sha256sum {path.name} > {checksum.name}"
        )
    if _digest(content) not in _listed(path):
        raise CheckpointError(f"{path}: damaged, not what {checksum.name} says")
    try:
        check_container(content)
        checkpoint = torch.load(
            io.BytesIO(content), map_location="cpu", weights_only=True
        )
        check_contents(checkpoint)
    except Exception as error:  # foreign bytes may fail in any way
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{path}: not a checkpoint ({reason})") from error
    return checkpoint


def load_weights(task: nn.Module, run: Path) -> None:
    """Give a task the weights of a run's best checkpoint.

    CheckpointError if there is none, or one of another network.
    """
    path = run / BEST
    state = read_checkpoint(path)
    try:
        task.load_state_dict(state["state_dict"])
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: not of this network ({reason})") from error


def has_checkpoint(run: Path) -> bool:
    """Return True if a run has a checkpoint to resume from, damaged or not."""
    return any((run / name).is_file() for name in (LAST, PREVIOUS, BEST))


def newest_verified(run: Path) -> Path:
    """Return the newest checkpoint that matches its checksum, without changing any file.

    Raises CheckpointError if there is none.
    """
    return _newest(run, *_examined(run))


def going_on_from(run: Path) -> Path:
    """Prepare a run for its resume; return last.ckpt.

    Damaged checkpoints are renamed. If the newest sound checkpoint is another file, it is
    copied to last.ckpt. Both are logged as warnings. Raises StorageError if the copy cannot
    be written.
    """
    steps, damaged = _examined(run)
    newest = _newest(run, steps, damaged)
    for path, error in damaged.items():
        log.warning("%s; %s", error, set_aside(path))
    if newest != run / LAST:
        log.warning("going on from %s, of step %d", newest, steps[newest])
        copy_checkpoint(newest, run / LAST)
    if os.path.lexists(run / BEST):
        _mend_best(run)
    return run / LAST


def _mend_best(run: Path) -> None:
    """Rename a damaged best.ckpt, and replace it by its copy if there is one.

    `last.ckpt` is a copy until the next validation, and then `previous.ckpt`.
    """
    try:
        read_checkpoint(run / BEST)
    except CheckpointError as error:
        listed = _listed(run / BEST)
        aside = set_aside(run / BEST)
        for path in (run / LAST, run / PREVIOUS):
            if path.is_file() and _digest(read_regular(path, MOST_BYTES)) in listed:
                copy_checkpoint(path, run / BEST)
                log.warning("%s; %s; %s is the same one", error, aside, path.name)
                return
        log.warning("%s; %s; the best from here on takes its place", error, aside)


def _examined(run: Path) -> tuple[dict[Path, int], dict[Path, CheckpointError]]:
    """Return the steps of sound checkpoints, and the errors of damaged ones.

    After a sound last.ckpt no other is read, because it is the newest.
    """
    steps: dict[Path, int] = {}
    damaged: dict[Path, CheckpointError] = {}
    for path in (run / LAST, run / PREVIOUS, run / BEST):
        if os.path.lexists(path) and run / LAST not in steps:
            try:
                steps[path] = _step(path)
            except CheckpointError as error:
                damaged[path] = error
    return steps, damaged


def _newest(
    run: Path, steps: dict[Path, int], damaged: dict[Path, CheckpointError]
) -> Path:
    if not steps:
        complaints = "; ".join(map(str, damaged.values()))
        raise CheckpointError(
            f"{run}: no checkpoint to go on from ({complaints}); start a new run"
        )
    return max(steps, key=steps.__getitem__)


def _step(path: Path) -> int:
    checkpoint = read_checkpoint(path)
    if missing := STATES - checkpoint.keys():
        raise CheckpointError(f"{path}: no state to go on from, without {missing}")
    return checkpoint["global_step"]


def checksum_of(path: Path) -> Path:
    """Return the path of the checksum of a file."""
    return path.with_name(f"{path.name}.sha256")


def _publish(content: bytes, path: Path) -> None:
    try:
        with staying(path.parent.parent):
            path.parent.mkdir(exist_ok=True)
        with on_disk(path, content) as temporary:
            if path.name == LAST.name and path.is_file():
                _move(path, path.with_name(PREVIOUS.name), _listed(path))
            _move(temporary, path, [_digest(content)])
        sync_folder(path.parent)
    except OSError as error:
        raise StorageError(
            f"{path}: not saved ({error.strerror}); the checkpoint before it is kept: "
            "free some space, then resume the run"
        ) from error


def _move(source: Path, target: Path, digests: list[str]) -> None:
    _list(target, [*_listed(target), *digests])
    os.replace(source, target)
    _list(target, digests)


def _list(path: Path, digests: list[str]) -> None:
    lines = [f"{digest}  {path.name}\n" for digest in digests]
    write_text(checksum_of(path), "".join(lines))


def _listed(path: Path) -> list[str]:
    checksum = checksum_of(path)
    if not checksum.is_file():
        return []
    try:
        content = read_regular(checksum, MOST_DIGESTS)
    except OSError as error:
        raise CheckpointError(f"{checksum}: not readable ({error.strerror})") from error
    lines = content.decode(errors="replace").splitlines()
    return [line.split()[0] for line in lines if line.strip()]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
