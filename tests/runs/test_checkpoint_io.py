"""Checkpoints: verified or refused, the one before is kept, and no code is run."""

import hashlib
import io
import math
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from imex_experiments.callbacks import Checkpoints
from imex_experiments.errors import CheckpointError, StorageError
from imex_experiments.runs.checkpoint_io import (
    STATES,
    VerifiedCheckpointIO,
    checksum_of,
    copy_checkpoint,
    going_on_from,
    newest_verified,
    read_checkpoint,
    write_checkpoint,
)
from imex_experiments.runs.layout import BEST, LAST, PREVIOUS


def content(step: int) -> dict[str, object]:
    weights = {"w": torch.full((500,), step)}
    return dict.fromkeys(STATES) | {"global_step": step, "state_dict": weights}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with steps 3, 2 and 1 in last, previous and best."""
    for name, step in ((BEST, 1), (LAST, 2), (LAST, 3)):
        write_checkpoint(content(step), tmp_path / name)
    return tmp_path


def test_last_leaves_the_one_before_it(run: Path) -> None:
    steps = [read_checkpoint(run / n)["global_step"] for n in (LAST, PREVIOUS, BEST)]
    assert steps == [3, 2, 1]
    names = {path.name for path in (run / "checkpoints").iterdir()}
    assert names == {
        f"{name}.ckpt{end}"
        for name in ("last", "previous", "best")
        for end in ("", ".sha256")
    }


def test_checksum_is_in_the_format_of_sha256sum(run: Path) -> None:
    digest, name = checksum_of(run / LAST).read_text().split()
    assert (len(digest), name) == (64, "last.ckpt")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "a flipped bit": lambda path: path.write_bytes(
        path.read_bytes()[:999]
        + bytes([path.read_bytes()[999] ^ 1])
        + path.read_bytes()[1000:]
    ),
    "missing": lambda path: path.unlink(),
    "no checksum": lambda path: checksum_of(path).unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_last_falls_back_to_the_newest_verified_one(
    damage: str, run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    DAMAGES[damage](run / LAST)
    with pytest.raises(CheckpointError, match=r"last\.ckpt"):
        read_checkpoint(run / LAST)
    before = sorted(run.rglob("*"))
    assert newest_verified(run) == run / PREVIOUS
    assert sorted(run.rglob("*")) == before
    assert going_on_from(run) == run / LAST
    assert f"going on from {run / PREVIOUS}, of step 2" in caplog.text
    aside = run / "checkpoints/last.ckpt.damaged"
    assert aside.exists() == (damage != "missing")
    for name in (LAST, PREVIOUS):  # the damaged one has not become previous.ckpt
        assert read_checkpoint(run / name)["global_step"] == 2
    for name in (LAST, PREVIOUS):
        DAMAGES["cut"](run / name)
    assert going_on_from(run) == run / LAST
    assert read_checkpoint(run / LAST)["global_step"] == 1
    for name in (LAST, BEST):
        DAMAGES["cut"](run / name)
    with pytest.raises(CheckpointError, match="no checkpoint to go on from") as caught:
        going_on_from(run)
    assert "\n" not in str(caught.value)


def test_damaged_best_is_replaced_by_its_copy(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for path in (LAST, PREVIOUS):
        copy_checkpoint(run / path, run / BEST)
        best = (run / BEST).read_bytes()
        DAMAGES["cut"](run / BEST)
        assert going_on_from(run) == run / LAST
        assert (run / BEST).read_bytes() == best
        assert f"{path.name} is the same one" in caplog.text
        read_checkpoint(run / BEST)


@pytest.mark.parametrize("damage", [d for d in DAMAGES if d != "missing"])
def test_damaged_best_without_a_copy_is_set_aside(
    damage: str, run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The score that it had is forgotten, so that the next validation makes a new one."""
    last = (run / LAST).read_bytes()
    checkpoints = Checkpoints(str((run / BEST).parent))
    checkpoints.load_state_dict({"best_score": 0.5})
    assert checkpoints.best_score == 0.5
    DAMAGES[damage](run / BEST)
    assert going_on_from(run) == run / LAST
    assert (run / LAST).read_bytes() == last
    assert "the best from here on takes its place" in caplog.text
    assert (run / "checkpoints/best.ckpt.damaged").exists()
    again = Checkpoints(str((run / BEST).parent))
    again.load_state_dict({"best_score": 0.5})
    assert math.isnan(again.best_score)


@pytest.mark.parametrize("key", ["losses", "rows", "seconds"])
def test_a_history_that_lacks_something_is_no_checkpoint_to_go_on_from(
    key: str, run: Path
) -> None:
    state = {"losses": [1.0], "rows": [], "seconds": 1.0}
    for path in (LAST, PREVIOUS, BEST):
        write_checkpoint({**content(9), "callbacks": {"History": state}}, run / path)
    assert newest_verified(run) == run / LAST
    del state[key]
    for path in (LAST, PREVIOUS, BEST):
        write_checkpoint({**content(9), "callbacks": {"History": state}}, run / path)
    with pytest.raises(CheckpointError, match=rf"History is not .*{key}"):
        newest_verified(run)


def test_a_compressed_checkpoint_is_none(run: Path) -> None:
    """A thousandth of its size on the disk; no run writes one."""
    large = io.BytesIO()
    with (
        zipfile.ZipFile(run / LAST) as source,
        zipfile.ZipFile(large, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    for path in (LAST, PREVIOUS, BEST):
        (run / path).write_bytes(large.getvalue())
        digest = hashlib.sha256(large.getvalue()).hexdigest()
        checksum_of(run / path).write_text(f"{digest}  {path.name}\n")
    with pytest.raises(CheckpointError, match="compressed, which no run writes"):
        read_checkpoint(run / LAST)


def test_urls_are_refused() -> None:
    for url in ("https://example.org/last.ckpt", "s3://bucket/x", "file:///etc/passwd"):
        with pytest.raises(CheckpointError, match="a URL; checkpoints are read from"):
            VerifiedCheckpointIO().load_checkpoint(url)


class Evil:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return (open, (str(self.canary), "w"))


def test_weights_only_whatever_lightning_asks_for(tmp_path: Path) -> None:
    """The checksum is right, the writer was not."""
    canary, path = tmp_path / "canary", tmp_path / "x.ckpt"
    write_checkpoint({"global_step": 1, "callbacks": Evil(canary)}, path)
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        VerifiedCheckpointIO().load_checkpoint(path, weights_only=False)
    assert not canary.exists()
    buffer = io.BytesIO()
    torch.save(torch.ones(2), buffer)
    write_checkpoint(torch.ones(2), path)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="Tensor inside"):
        read_checkpoint(path)


class Killed(BaseException):
    pass


def test_whatever_has_a_final_name_verifies_at_every_moment(
    run: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state of the folder before and after each rename and each sync."""
    moments = []

    def observed(call: Callable[..., None]) -> Callable[..., None]:
        def observe(*args: object) -> None:
            call(*args)
            moments.append(
                shutil.copytree(run, tmp_path_factory.mktemp("moment") / "x")
            )

        return observe

    monkeypatch.setattr(os, "replace", observed(os.replace))
    monkeypatch.setattr(os, "fsync", observed(os.fsync))
    write_checkpoint(content(4), run / LAST)
    monkeypatch.undo()
    assert len(moments) == 1 + 2 + 2 * 4 + 1  # file, renames, checksums, folder
    for moment in moments:
        for path in (moment / "checkpoints").glob("*.ckpt"):
            read_checkpoint(path)
        newest = read_checkpoint(newest_verified(moment))["global_step"]
        assert newest in (3, 4)


def test_content_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rename may reach the disk before what it names; a loss of power is not simulated."""
    done = []
    fsync, replace = os.fsync, os.replace

    def traced_fsync(handle: int) -> None:
        fsync(handle)
        done.append(("synced", os.readlink(f"/proc/self/fd/{handle}")))

    def traced_replace(source: object, target: object) -> None:
        replace(source, target)  # type: ignore[arg-type]
        done.append(("named", str(source), str(target)))

    monkeypatch.setattr(os, "fsync", traced_fsync)
    monkeypatch.setattr(os, "replace", traced_replace)
    write_checkpoint(content(1), tmp_path / "x.ckpt")
    for number, step in enumerate(done):
        if step[0] == "named":
            assert ("synced", step[1]) in done[:number]
            assert (
                Path(step[1]).parent == tmp_path
            )  # a rename is atomic only within a disk
    assert done[-1] == ("synced", str(tmp_path))


def test_full_disk_keeps_the_old_checkpoint(run: Path) -> None:
    """A limit of the file size stands for the disk: the write fails half way."""
    import resource

    before = {p.name: p.read_bytes() for p in (run / "checkpoints").iterdir()}
    big = {"global_step": 4, "state_dict": {"w": torch.zeros(100_000)}}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"last\.ckpt: not saved \(File too"):
            write_checkpoint(big, run / LAST)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {p.name: p.read_bytes() for p in (run / "checkpoints").iterdir()} == before
