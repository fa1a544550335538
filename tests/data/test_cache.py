"""The cache: complete files or none, other parameters other files, damage noticed."""

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from imex_experiments.data.cache import LEFTOVER_SECONDS, Tensors, cached, complete_file
from imex_experiments.data.qtips import QtipsRecipe, make_qtips

LAYOUT = {"a": ("I64", 2, 3), "b": ("U8", None)}


def counting(calls: list[int]) -> Callable[[], Tensors]:
    def make() -> Tensors:
        calls.append(1)
        return {
            "a": torch.arange(6).reshape(2, 3),
            "b": torch.ones(4, dtype=torch.uint8),
        }

    return make


def test_second_reader_gets_the_same_tensors_from_the_file(tmp_path: Path) -> None:
    calls: list[int] = []
    first, second = (
        cached(tmp_path, "x", {"p": 1}, counting(calls), LAYOUT) for _ in range(2)
    )
    assert len(calls) == 1
    assert all(torch.equal(first[k], second[k]) for k in first)
    cached(tmp_path, "x", {"p": 2}, counting(calls), LAYOUT)
    assert len(calls) == 2


@pytest.mark.parametrize("damage", ["bit", "cut", "empty", "pickle"])
def test_damaged_file_is_set_aside_and_made_anew(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[int] = []
    expected = cached(tmp_path, "x", {}, counting(calls), LAYOUT)
    (path,) = tmp_path.glob("*.safetensors")
    content = bytearray(path.read_bytes())
    if damage == "bit":
        content[-1] ^= 1
    path.write_bytes(
        {
            "bit": bytes(content),
            "cut": bytes(content[:-5]),
            "empty": b"",
            "pickle": b"\x80\x04.",
        }[damage]
    )
    again = cached(tmp_path, "x", {}, counting(calls), LAYOUT)
    assert len(calls) == 2
    assert "damaged" in caplog.text
    assert path.with_suffix(".damaged").exists()
    assert all(torch.equal(again[k], expected[k]) for k in expected)
    cached(tmp_path, "x", {}, counting(calls), LAYOUT)
    assert len(calls) == 2


@pytest.mark.parametrize(
    "other",
    [
        {"a": torch.arange(6).reshape(2, 3)},
        {"a": torch.arange(6).reshape(2, 3), "b": torch.ones(4), "c": torch.ones(1)},
        {"a": torch.arange(6), "b": torch.ones(4, dtype=torch.uint8)},
        {"a": torch.arange(8).reshape(2, 4), "b": torch.ones(4, dtype=torch.uint8)},
        {"a": torch.arange(6).reshape(2, 3), "b": torch.ones(4)},
    ],
    ids=["one less", "one more", "other axes", "other sizes", "another type"],
)
def test_other_tensors_than_asked_for_are_set_aside(
    other: Tensors, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With a checksum that is right: somebody else wrote them under this name."""
    foreign = dict.fromkeys(other, ("I64",))
    cached(tmp_path, "x", {}, lambda: other, foreign)
    calls: list[int] = []
    found = cached(tmp_path, "x", {}, counting(calls), LAYOUT)
    assert len(calls) == 1
    assert found["a"].shape == (2, 3)
    assert "is damaged" in caplog.text


def test_failed_making_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail() -> Tensors:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        cached(tmp_path, "x", {}, fail, LAYOUT)
    assert list(tmp_path.iterdir()) == []


def test_unwritable_folder_is_told_and_gone_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    tensors = cached(blocked, "x", {}, counting([]), LAYOUT)
    assert "cannot cache" in caplog.text
    assert torch.equal(tensors["b"], torch.ones(4, dtype=torch.uint8))


def _make(folder: Path, barrier: object) -> int:
    barrier.wait()
    recipe = QtipsRecipe()
    layout = {"images": ("U8", 64, 1, 64, 64), "labels": ("U8", 64, 64, 64)}
    tensors = cached(folder, "q", {}, lambda: make_qtips(64, recipe, 0), layout)
    return int(tensors["images"].sum())


def test_several_processes_make_one_file_and_read_equal_bytes(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, context.Pool(3) as pool:
        barrier = manager.Barrier(3)
        sums = pool.starmap(_make, [(tmp_path, barrier)] * 3)
    assert len(set(sums)) == 1
    assert [p.suffix for p in tmp_path.iterdir()] == [".safetensors"]


HALF = """
import sys, time
from pathlib import Path
from imex_experiments.data.cache import complete_file
with complete_file(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"half")
    print("ready", flush=True)
    time.sleep(60)
"""


def test_process_killed_while_writing_leaves_no_final_file(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    words = [sys.executable, "-c", HALF, str(path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.kill()
    assert not path.exists()
    (leftover,) = tmp_path.iterdir()

    with complete_file(path) as temporary:  # a leftover may still belong to somebody
        temporary.write_bytes(b"whole")
    assert path.read_bytes() == b"whole"
    assert leftover.exists()

    long_ago = time.time() - LEFTOVER_SECONDS - 60
    underneath = tmp_path / ".tmpAb12Cd"
    underneath.write_bytes(b"half")
    for old in (leftover, underneath):
        os.utime(old, (long_ago, long_ago))
    with complete_file(path) as temporary:
        temporary.write_bytes(b"again")
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"again"


def test_processes_that_ask_at_once_make_it_once(tmp_path: Path) -> None:
    """Those of a training on several devices, or the jobs of a sweep."""
    made = tmp_path / "made"

    def make() -> Tensors:
        with made.open("a") as file:
            file.write("once\n")
        time.sleep(0.3)  # all others have come by then
        return {"a": torch.arange(6)}

    def ask() -> None:
        found = cached(tmp_path / "cache", "x", {}, make, {"a": ("I64", 6)})
        assert found["a"].tolist() == [*range(6)]

    processes = [
        multiprocessing.get_context("fork").Process(target=ask) for _ in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert made.read_text() == "once\n"
    assert [p.suffix for p in (tmp_path / "cache").iterdir()] == [".safetensors"]
