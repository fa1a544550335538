"""The archive of CIFAR-10: read back, and refused where it is another one."""

import hashlib
import io
import os
import sys
import tarfile
from pathlib import Path

import pytest
import torch
from cifar10_stand_in import write_stand_in

from imex_experiments.data import Cifar10Data, cifar10
from imex_experiments.data.cifar10 import ARCHIVE, RECORD, TEST_FILE, TRAIN_FILES
from imex_experiments.errors import DataError


def write(folder: Path, contents: dict[str, bytes]) -> None:
    with tarfile.open(folder / ARCHIVE, "w:gz") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def record(label: int, value: int = 0) -> bytes:
    """One image whose planes are value, value + 1, value + 2."""
    return bytes([label]) + b"".join(bytes([value + c]) * 1024 for c in range(3))


def good() -> dict[str, bytes]:
    files = {name: record(i, 10 * i) for i, name in enumerate(TRAIN_FILES)}
    return files | {TEST_FILE: record(9, 200) + record(0, 100)}


def read(folder: Path, **options: object) -> Cifar10Data:
    defaults = {"verify": False, "batch_size": 2, "validation": 0.4}
    data = Cifar10Data(str(folder), **(defaults | options))
    data.setup()
    return data


def test_records_become_images_and_labels(tmp_path: Path) -> None:
    write(tmp_path, good())
    data = read(tmp_path)
    assert {split: len(part) for split, part in data.splits.items()} == {
        "train": 3,
        "val": 2,
        "test": 2,
    }
    images, labels = data.splits["test"].tensors
    assert labels.tolist() == [9, 0]
    assert images.shape == (2, 3, 32, 32)
    assert images[0, :, 5, 7].tolist() == [200, 201, 202]
    seen = torch.cat([data.splits[s].tensors[1] for s in ("train", "val")])
    assert sorted(seen.tolist()) == [0, 1, 2, 3, 4]
    images, labels = data.splits["train"].tensors
    assert (images[:, 0, 0, 0] == 10 * labels).all()
    assert data.facts["mean"][1] == pytest.approx(data.facts["mean"][0] + 1)


@pytest.mark.skipif(sys.platform != "linux", reason="FIFOs and /dev/zero")
@pytest.mark.parametrize("verify", [True, False])
def test_what_is_no_regular_file_is_told_at_once(verify: bool, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ARCHIVE)
    for _ in range(2):
        with pytest.raises(DataError, match=r"not a readable archive \(not a regular"):
            read(tmp_path, verify=verify)
        (tmp_path / ARCHIVE).unlink()
        (tmp_path / ARCHIVE).symlink_to("/dev/zero")


def test_stand_in_has_the_same_layout(tmp_path: Path) -> None:
    write_stand_in(tmp_path / ARCHIVE, per_file=4)
    data = read(tmp_path)
    assert len(data.splits["train"]) + len(data.splits["val"]) == 20
    assert len(data.splits["test"]) == 4
    with tarfile.open(tmp_path / ARCHIVE) as archive:
        assert archive.getmember(TEST_FILE).size == 4 * RECORD


def test_published_archive_is_known_by_size_and_checksum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, good())
    with pytest.raises(DataError, match=r"expected 170,052,171 bytes, got"):
        read(tmp_path, verify=True)
    content = (tmp_path / ARCHIVE).read_bytes()
    monkeypatch.setattr(cifar10, "SIZE", len(content))
    with pytest.raises(
        DataError, match="expected MD5 c32a1d4ab5d03f1284b67883e8d87530"
    ):
        read(tmp_path, verify=True)
    monkeypatch.setattr(cifar10, "MD5", hashlib.md5(content).hexdigest())
    assert len(read(tmp_path, verify=True).splits["test"]) == 2


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({TEST_FILE: None}, "it has no cifar-10-batches-bin/test_batch.bin"),
        ({TEST_FILE: b""}, "has 0 bytes, expected 1 to 10,000 records of 3,073"),
        ({TEST_FILE: record(1)[:-1]}, "has 3,072 bytes"),
        ({TRAIN_FILES[0]: record(10)}, "has the label 10, expected 0 to 9"),
    ],
)
def test_another_format_is_refused(
    change: dict[str, bytes | None], complaint: str, tmp_path: Path
) -> None:
    files = {k: v for k, v in (good() | change).items() if v is not None}
    write(tmp_path, files)
    with pytest.raises(DataError, match=complaint):
        read(tmp_path)


def test_missing_and_damaged_archives_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file; get it from https://"):
        read(tmp_path)
    write(tmp_path, good())
    content = (tmp_path / ARCHIVE).read_bytes()
    (tmp_path / ARCHIVE).write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"not a readable archive|is cut off|it has no"):
        read(tmp_path)
    (tmp_path / ARCHIVE).write_text("<html>")
    with pytest.raises(DataError, match="not a readable archive"):
        read(tmp_path)
