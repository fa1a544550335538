"""Trained weights as a start: what fits is taken, the rest is listed, nothing is run."""

import logging
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from imex_experiments import load_run
from imex_experiments.errors import CheckpointError
from imex_experiments.runs.checkpoint_io import checksum_of, write_checkpoint
from imex_experiments.runs.layout import LAST, OVERRIDES
from imex_experiments.runs.resume import resumed_arguments
from imex_experiments.runs.transfer import start_from


def network(classes: int = 4, width: int = 3) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.Conv2d(width, classes, 1)
    )


def around(inner: nn.Module) -> nn.Module:
    module = nn.Module()
    module.network = inner
    return module


def saved(kind: str, state: dict[str, torch.Tensor], folder: Path) -> Path:
    """Write weights as a checkpoint of a run, or as files of others."""
    path = folder / kind
    if kind == "best.ckpt":
        (folder / "checkpoints").mkdir()
        write_checkpoint({"state_dict": state}, path := folder / "checkpoints" / kind)
    elif kind == "x.safetensors":
        save_file(state, path)
    else:
        torch.save({"nested.pth": {"model": state}}.get(kind, state), path)
    return path


KINDS = ["best.ckpt", "x.safetensors", "plain.pt", "nested.pth"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("depths", [(1, 1), (0, 1), (3, 1), (0, 2)])
def test_weights_of_all_kinds_of_files_are_the_start(
    kind: str, depths: tuple[int, int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a task, of a network alone, with a wrapper more or less around it."""
    caplog.set_level(logging.INFO)
    trained, task = network(), network()
    source, target = trained, task
    for _ in range(depths[0]):
        source = around(source)
    for _ in range(depths[1]):
        target = around(target)
    path = saved(kind, source.state_dict(), tmp_path)
    start_from(target, path)
    for name, value in trained.state_dict().items():
        assert torch.equal(task.state_dict()[name], value)
    (record,) = caplog.records
    assert record.message == f"weights={path}: 9 of 9 tensors fit"
    assert record.levelno == logging.INFO


def test_a_run_is_the_start_by_its_best_checkpoint(trained: Path) -> None:
    task, source = load_run(trained, "last"), load_run(trained)
    start_from(task, trained)
    for name, value in source.state_dict().items():
        assert torch.equal(task.state_dict()[name], value)


def test_what_does_not_fit_is_listed_and_left_as_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Another number of classes; one tensor of another kind, one more, one less."""
    state = network(classes=5).state_dict()
    state["0.weight"] = state["0.weight"].int()
    state["unknown"] = state.pop("0.bias")
    task = network()
    before = {name: value.clone() for name, value in task.state_dict().items()}
    start_from(around(task), saved("plain.pt", state, tmp_path))
    (line,) = caplog.messages
    assert line.partition(": ")[2].split("; ") == [
        "5 of 9 tensors fit",
        "missing: 0.bias",
        "of another shape or type: 0.weight [3, 1, 3, 3] torch.int32 for [3, 1, 3, 3], "
        "2.weight [5, 3, 1, 1] for [4, 3, 1, 1], 2.bias [5] for [4]",
        "not of this network: unknown",
    ]
    after = task.state_dict()
    for name in ("0.weight", "0.bias", "2.weight", "2.bias"):
        assert torch.equal(after[name], before[name])


def test_a_resumed_run_goes_on_with_its_freeze_and_not_from_the_weights(
    tmp_path: Path,
) -> None:
    """The weights may be gone by then; a folder cannot name a file that is read."""
    (tmp_path / OVERRIDES).parent.mkdir()
    words = ["weights=/no/where", "freeze=['stages.0.*']", "seed=3"]
    (tmp_path / OVERRIDES).write_text(yaml.safe_dump(words))
    write_checkpoint({"state_dict": {}}, tmp_path / LAST)
    given = [f"resume={tmp_path}"]
    assert resumed_arguments(given)[:2] == words[1:]


class _Evil:
    """A pickle that makes a file where it is loaded."""

    def __init__(self, canary: Path) -> None:
        self.canary = str(canary)

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return (open, (self.canary, "w"))


def pickled(path: Path) -> None:
    torch.save({"0.weight": _Evil(path.with_name("canary"))}, path)


def compressed(path: Path) -> None:
    torch.save(network().state_dict(), path)
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in records.items():
            archive.writestr(name, content)


def changed(path: Path) -> None:
    path.parent.mkdir()
    write_checkpoint({"state_dict": network().state_dict()}, path)
    checksum_of(path).write_text(f"{'0' * 64}  {path.name}\n")


def sparse(path: Path) -> None:
    torch.save({"0.weight": torch.eye(3).to_sparse()}, path)


BAD: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "missing": ("x.pt", lambda path: None, "No such file"),
    "pickle": ("x.pt", pickled, "no weights in it"),
    "text": (
        "x.pt",
        lambda path: path.write_text("x"),
        "not in the format of torch.save",
    ),
    "compressed": ("x.pt", compressed, "compressed"),
    "sparse": ("x.pt", sparse, "0.weight is not what a run writes"),
    "a list": ("x.pt", lambda path: torch.save([torch.ones(1)], path), "list inside"),
    "numbers": ("x.pt", lambda path: torch.save({"a": 1}, path), "not a state dict"),
    "safetensors": (
        "x.safetensors",
        lambda path: path.write_bytes(b"\xff" * 99),
        "no we",
    ),
    "device": ("x.pt", lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
    "endless": ("x.safetensors", lambda p: p.symlink_to("/dev/zero"), "not a regular"),
    "damaged": ("checkpoints/last.ckpt", changed, "damaged, not what last.ckpt.sha256"),
    "no run": ("empty", lambda path: path.mkdir(), "best.ckpt: no such checkpoint"),
    "another": (
        "x.pt",
        lambda path: torch.save(network(7, 5).state_dict(), path),
        r"none of 9 tensors fit; of another shape or type: 0.weight \[5, 1, 3, 3\]",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_start_is_one_clear_line(kind: str, tmp_path: Path) -> None:
    name, make, complaint = BAD[kind]
    make(tmp_path / name)
    with pytest.raises(CheckpointError, match=complaint) as caught:
        start_from(around(network()), tmp_path / name)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert not (tmp_path / "canary").exists()
