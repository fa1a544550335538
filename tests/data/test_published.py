"""The published layout, written and read back; every defect is one clear line."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from imex_experiments.data import QtipsData
from imex_experiments.data.folder.published import read_image_folder, write_image_folder
from imex_experiments.data.qtips import QtipsRecipe, make_qtips
from imex_experiments.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_image_folder(tmp_path / "q", **make_qtips(5, QtipsRecipe(), 0))
    return tmp_path / "q"


def test_written_images_are_read_back_exactly(folder: Path) -> None:
    expected, found = make_qtips(5, QtipsRecipe(), 0), read_image_folder(folder, 4)
    assert all(torch.equal(found[k], expected[k]) for k in expected)


def test_order_and_choice_are_those_of_filenames_txt(folder: Path) -> None:
    (folder / "filenames.txt").write_text("000003.png\n000001.png\n")
    expected, found = make_qtips(5, QtipsRecipe(), 0), read_image_folder(folder, 4)
    assert torch.equal(found["labels"], expected["labels"][[3, 1]])


def test_nothing_is_overwritten(folder: Path) -> None:
    with pytest.raises(DataError, match="not an empty folder"):
        write_image_folder(folder, **make_qtips(1, QtipsRecipe(), 0))


def save(path: Path, array: np.ndarray, mode: str | None = None) -> None:
    Image.fromarray(array, mode).save(path)


DEFECTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no labels folder entry": (
        lambda f: (f / "labels/000002.png").unlink(),
        "5 images but 4 labels; first without a partner: 000002.png",
    ),
    "colour": (
        lambda f: save(f / "images/000001.png", np.zeros((64, 64, 3), np.uint8)),
        "000001.png: expected a grey image, got a colour one",
    ),
    "16 bit": (
        lambda f: save(f / "images/000001.png", np.zeros((64, 64), np.uint16)),
        "000001.png: more than 8 bits; convert it to 8-bit grey",
    ),
    "text": (
        lambda f: (f / "images/000001.png").write_text("<html>"),
        "000001.png: not a readable image",
    ),
    "cut off": (
        lambda f: (f / "images/000001.png").write_bytes(
            (f / "images/000001.png").read_bytes()[:60]
        ),
        "000001.png: not a readable image",
    ),
    "other size": (
        lambda f: save(f / "images/000001.png", np.zeros((32, 64), np.uint8)),
        r"000001.png: \(32, 64\) pixels, others have \(64, 64\)",
    ),
    "unknown class": (
        lambda f: save(f / "labels/000004.png", np.full((64, 64), 7, np.uint8)),
        "000004.png: label 7 is not one of 0 ... 3",
    ),
    "no list": (lambda f: (f / "filenames.txt").unlink(), "filenames.txt: missing"),
    "empty list": (lambda f: (f / "filenames.txt").write_text("\n"), "lists no images"),
    "unknown name": (
        lambda f: (f / "filenames.txt").write_text("nothere.png\n"),
        "nothere.png: no such file",
    ),
    "path out of the folder": (
        lambda f: (f / "filenames.txt").write_text("../../etc/passwd\n"),
        "not a plain file name",
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_defects_are_one_clear_line(defect: str, folder: Path) -> None:
    spoil, complaint = DEFECTS[defect]
    spoil(folder)
    with pytest.raises(DataError, match=complaint) as caught:
        read_image_folder(folder, 4)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3


def test_root_with_splits_and_flat_root(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    for split, number in (("train", 20), ("val", 4)):
        write_image_folder(root / split, **make_qtips(number, QtipsRecipe(), number))
    data = QtipsData(cache_dir=str(tmp_path / "cache"), root=str(root), batch_size=4)
    data.setup()
    assert {k: len(v) for k, v in data.splits.items()} == {"train": 20, "val": 4}
    assert not (tmp_path / "cache").exists()

    flat = QtipsData(
        cache_dir=str(tmp_path), root=str(folder), train=3, val=1, test=1, batch_size=2
    )
    flat.setup()
    parts = [flat.splits[k].tensors[0] for k in ("train", "val", "test")]
    assert [len(p) for p in parts] == [3, 1, 1]
    everything = read_image_folder(folder, 4)["images"].flatten(1).sum(1)
    assert sorted(torch.cat(parts).flatten(1).sum(1)) == sorted(everything)


def test_missing_and_foreign_roots(tmp_path: Path) -> None:
    def setup(root: Path) -> None:
        QtipsData(cache_dir=str(tmp_path), root=str(root)).setup()

    with pytest.raises(
        DataError, match=r"no such folder; write one with python scripts/make_qtips\.py"
    ):
        setup(tmp_path / "nowhere")
    with pytest.raises(DataError, match="neither images/ nor train/ in it"):
        setup(tmp_path)
