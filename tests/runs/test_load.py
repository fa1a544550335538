"""A run folder gives back its task, and a damaged one says so."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from imex_experiments import load_run
from imex_experiments.data.qtips import QtipsRecipe, make_qtips, split_seed
from imex_experiments.errors import CheckpointError, ConfigError, RunError
from imex_experiments.runs.checkpoint_io import write_checkpoint
from imex_experiments.tasks import Task
from imex_experiments.tasks.metrics import segmentation_scores


def test_loaded_task_has_the_recorded_score(trained: Path) -> None:
    """Load, predict and score by hand: the number of metrics.json comes out."""
    task = load_run(trained)
    data = make_qtips(16, QtipsRecipe(), split_seed(0, "test"))
    labels = task.predict(data["images"])
    confusion = (data["labels"].long() * 4 + labels).flatten().bincount(minlength=16)
    scores = segmentation_scores(confusion.view(4, 4), task.classes)
    recorded = json.loads((trained / "metrics.json").read_text())
    for name, value in scores.items():
        assert recorded[f"test/{name}"] == pytest.approx(value, abs=1e-6)


def test_best_and_last_are_both_there(trained: Path) -> None:
    assert not load_run(trained).training
    load_run(trained, checkpoint="last")
    with pytest.raises(CheckpointError, match=r"first\.ckpt: no such checkpoint"):
        load_run(trained, checkpoint="first")


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (open, ("/tmp/imex-canary-must-not-exist", "w"))


def spoil(run: Path, name: str, content: bytes) -> None:
    (run / name).write_bytes(content)


def forge(run: Path, name: str) -> None:
    """A checkpoint by somebody who knows about checksums."""
    write_checkpoint({"state_dict": _Evil()}, run / name)


def replace(run: Path, old: str, new: str) -> None:
    path = run / ".hydra/config.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


BEST = "checkpoints/best.ckpt"
DEFECTS: dict[str, tuple[Callable[[Path], object], type[RunError], str]] = {
    "no checkpoint": (
        lambda r: (r / BEST).unlink(),
        CheckpointError,
        "no such checkpoint",
    ),
    "empty": (
        lambda r: spoil(r, BEST, b""),
        CheckpointError,
        "damaged, not what best.ckpt.sha256 says; checkpoint=last is the run's end",
    ),
    "cut": (
        lambda r: spoil(r, BEST, (r / BEST).read_bytes()[:2000]),
        CheckpointError,
        "damaged, not what best.ckpt.sha256 says",
    ),
    "pickle": (
        lambda r: forge(r, BEST),
        CheckpointError,
        "not a checkpoint",
    ),
    "not a run": (
        lambda r: shutil.rmtree(r / ".hydra"),
        CheckpointError,
        "not a run folder, it has no .hydra/config.yaml",
    ),
    "another network": (
        lambda r: replace(r, "- 16", "- 12"),
        CheckpointError,
        "does not fit",
    ),
    "a larger network": (
        lambda r: replace(r, "- 16", "- 999"),
        CheckpointError,
        "the configuration is of a larger network than the checkpoint",
    ),
    "foreign class": (
        lambda r: replace(r, "imex_experiments.networks.DynamicNet", "os.system"),
        ConfigError,
        "only classes of imex_experiments",
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_defects_are_one_clear_line(defect: str, trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    damage, error, complaint = DEFECTS[defect]
    damage(run)
    with pytest.raises(error, match=complaint) as caught:
        load_run(run)
    assert "\n" not in str(caught.value)
    assert not Path("/tmp/imex-canary-must-not-exist").exists()


def test_run_of_another_task_is_refused(trained: Path) -> None:
    class DepthTask(Task):
        pass

    with pytest.raises(ConfigError, match="a run of SegmentationTask, not DepthTask"):
        load_run(trained, kind=DepthTask)
