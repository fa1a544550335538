"""Trained networks in one file: they come with the package, and strangers may send some."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import publish
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from imex_experiments import load_pretrained, load_run
from imex_experiments.commands import predict
from imex_experiments.data.qtips import QtipsRecipe, make_qtips, split_seed
from imex_experiments.errors import CheckpointError, ConfigError, RunError
from imex_experiments.runs.pretrained import (
    FOLDER,
    MOST_BYTES,
    pretrained_names,
    write_pretrained,
)
from imex_experiments.runs.transfer import read_safetensors
from imex_experiments.tasks import SegmentationTask

QTIPS = ("imexnet-qtips", "resnet-qtips")


def test_networks_that_come_with_the_package_are_small_and_have_cards() -> None:
    assert set(QTIPS) <= set(pretrained_names())
    for name in pretrained_names():
        assert (FOLDER / f"{name}.safetensors").stat().st_size < MOST_BYTES
        card = (FOLDER / f"{name}.md").read_text()
        assert card.startswith(f"# {name}\n")
        for section in ("Data", "Recipe", "Scores", "Limits"):
            assert f"\n## {section}\n\n" in card
        assert "cache_dir" not in card


@pytest.mark.parametrize(
    "name", [QTIPS[0], pytest.param(QTIPS[1], marks=pytest.mark.slow)]
)
def test_a_trained_network_has_the_scores_of_its_card(name: str) -> None:
    """Only where two classes are equal up to rounding may a label differ: one in 1,000."""
    task = load_pretrained(name)
    assert isinstance(task, SegmentationTask)
    assert not task.training
    stated = json.loads(read_safetensors(FOLDER / f"{name}.safetensors")[1]["scores"])
    data = make_qtips(256, QtipsRecipe(), split_seed(0, "test"))
    with torch.no_grad():
        score = task.score(task.evaluated(data["images"]), data["labels"])
    assert score == pytest.approx(stated["test/miou"], abs=1e-3)


def called(
    monkeypatch: pytest.MonkeyPatch, main: Callable[[], None], *words: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["command", *words])
    main()


def test_predict_takes_a_trained_network_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_qtips(2, QtipsRecipe(), 7)
    (tmp_path / "images").mkdir()
    for number, image in enumerate(data["images"][:, 0].numpy()):
        Image.fromarray(image).save(tmp_path / f"images/{number}.png")
    words = [f"images={tmp_path / 'images'}", f"out={tmp_path / 'out'}"]
    called(monkeypatch, predict.main, "pretrained=imexnet-qtips", *words)
    labels = load_pretrained("imexnet-qtips").predict(data["images"])
    for number, label in enumerate(labels):
        with Image.open(tmp_path / f"out/labels/{number}.png") as written:
            assert written.tobytes() == label.numpy().tobytes()
    words[1] = f"out={tmp_path / 'other'}"
    for choice in ([], ["run=x", "pretrained=y"]):
        with pytest.raises(ConfigError, match="either run=<run> or pretrained=<name>"):
            called(monkeypatch, predict.main, *choice, *words)


def test_a_published_run_is_its_task_without_its_paths(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [
        f"run={trained}",
        "name=mine",
        "limits=None that matter.",
        f"out={tmp_path}",
    ]
    called(monkeypatch, publish.main, *words)
    path = tmp_path / "mine.safetensors"
    task, source = load_pretrained(path), load_run(trained)
    images = make_qtips(4, QtipsRecipe(), 3)["images"]
    assert torch.equal(task.evaluated(images), source.evaluated(images))
    card = path.with_suffix(".md").read_text()
    recorded = json.loads((trained / "metrics.json").read_text())
    val, test = recorded["val/miou"], recorded["test/miou"]
    assert f"| miou | {val:.4f} | {test:.4f} |" in card
    assert "None that matter." in card
    assert "python train.py model=imexnet data=qtips" in card
    for text in (card, path.read_bytes().decode("latin1")):
        assert str(trained.parent) not in text
        assert str(Path.home()) not in text
    with pytest.raises(ConfigError, match=r"bytes of weights, at most 1,000 are"):
        write_pretrained(tmp_path / "large.safetensors", trained, {}, most=1000)
    assert not (tmp_path / "large.safetensors").exists()


def test_paths_are_not_published() -> None:
    settings = {"root": "/home/me/camvid", "images": "{split}/images", "size": [4, 5]}
    assert publish.public(settings) == {**settings, "root": "<path>"}
    assert publish.public("data.root='/home/me/x'") == "data.root=<path>"
    assert publish.public("model/layer=double") == "model/layer=double"


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'imexnet-qtips'"):
        load_pretrained("imexnet-qtip")
    with pytest.raises(ConfigError, match="no trained network"):
        load_pretrained("../pretrained/imexnet-qtips")


MODEL = "imex_experiments.networks.DynamicNet"
EVIL: dict[str, tuple[dict[str, tuple[str, str]], type[RunError], str]] = {
    "class": (
        {"config": (MODEL, "os.system")},
        ConfigError,
        "only classes of imex_exp",
    ),
    "method": (
        {"config": (MODEL, "imex_experiments.data.QtipsData")},
        ConfigError,
        "only classes of imex_experiments for model",
    ),
    "resolver": (
        {"config": ("boundary: periodic", "boundary: ${oc.env:HOME}")},
        CheckpointError,
        "it could read what is yours",
    ),
    "tag": (
        {"config": ("boundary: periodic", "boundary: !!python/name:os.system x")},
        CheckpointError,
        "not readable",
    ),
    "alias": (
        {"config": ("boundary: periodic", "a: &a [1]\n  boundary: *a")},
        CheckpointError,
        "it has an alias",
    ),
    "larger": (
        {"config": ("- 16\n", "- 4096\n")},
        CheckpointError,
        "larger network than the checkpoint",
    ),
    "another": ({"config": ("- 16\n", "- 12\n")}, CheckpointError, "does not fit"),
    "channels": (
        {"facts": ('"in_channels": 1', '"in_channels": 10000000000')},
        CheckpointError,
        "does not fit",
    ),
    "no facts": ({"facts": ('"mean"', '"main"')}, CheckpointError, "mean.*missing"),
    "no json": ({"facts": ("{", "[")}, CheckpointError, "not readable"),
}


@pytest.mark.parametrize("kind", EVIL)
def test_files_of_strangers_are_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    weights, stated = read_safetensors(FOLDER / "imexnet-qtips.safetensors")
    changes, error, complaint = EVIL[kind]
    for key, (old, new) in changes.items():
        assert old in stated[key]
        stated[key] = stated[key].replace(old, new, 1)
    save_file(weights, path := tmp_path / "x.safetensors", stated)
    with pytest.raises(error, match=complaint) as caught:
        load_pretrained(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("lacking", ["config", "facts"])
def test_a_file_without_a_task_is_refused(lacking: str, tmp_path: Path) -> None:
    weights, stated = read_safetensors(FOLDER / "imexnet-qtips.safetensors")
    rest: dict[str, Any] = {k: v for k, v in stated.items() if k != lacking}
    save_file(weights, path := tmp_path / "x.safetensors", rest)
    with pytest.raises(CheckpointError, match=f"its metadata lack {lacking}"):
        load_pretrained(path)
