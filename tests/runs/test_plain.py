"""YAML and folders of a stranger: read as plain values of bounded size, or refused."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from imex_experiments.errors import CheckpointError
from imex_experiments.runs.plain import MOST_YAML, check_folder, read_yaml

REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "an alias": (lambda path: path.write_text("a: &a 1\nb: *a\n"), "it has an alias"),
    "a tag": (lambda path: path.write_text("a: !!python/name:os.system\n"), "a"),
    "many levels": (lambda path: path.write_text("[" * 33 + "]" * 33), "32 levels"),
    "a long integer": (lambda path: path.write_text(f"a: {2**63}\n"), "64 bits"),
    "bytes": (
        lambda path: path.write_text("a: !!binary aGk=\n"),
        "a bytes, which no run",
    ),
    "too long": (lambda path: path.write_text("#" * (MOST_YAML + 1)), "more than the"),
    "a FIFO": (os.mkfifo, "not a regular file"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_no_run_writes_is_refused(kind: str, tmp_path: Path) -> None:
    write, reason = REFUSED[kind]
    write(path := tmp_path / "config.yaml")
    with pytest.raises(
        CheckpointError, match=rf"config.yaml: not readable \(.*{reason}"
    ):
        read_yaml(path)


@pytest.mark.parametrize("name", ["metrics.csv", "checkpoints/best.ckpt"])
def test_a_link_in_a_run_folder_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / "checkpoints").mkdir()
    check_folder(tmp_path)
    (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(CheckpointError, match=f"{name}: a link, which no run makes"):
        check_folder(tmp_path)
