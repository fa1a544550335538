"""Overrides in whole runs: what is refused before it starts, and what may be left out."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import QUICK, Command
from torture import SMALL, TRAIN

from imex_experiments.runs.checkpoint_io import read_checkpoint


@pytest.mark.parametrize("mode", [[], ["-m"]])
def test_foreign_key_is_refused_before_a_folder_is_made(
    mode: list[str], forked: Command, tmp_path: Path
) -> None:
    done = forked(TRAIN, *mode, "+sed=1", *SMALL, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "sed: unknown key, did you mean 'seed'?" in done.stderr
    assert not list(tmp_path.iterdir())


def test_foreign_key_of_a_stored_command_is_refused(
    forked: Command, tmp_path: Path
) -> None:
    """The run was made when nobody asked; nothing of it may change now."""
    run = tmp_path / "run"
    for name, text in {
        ".hydra/overrides.yaml": "[+sed=1]",
        ".hydra/config.yaml": "{sed: 1}",
        "checkpoints/last.ckpt": "",
        "status.json": '{"state": "interrupted"}',
    }.items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(text)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    done = forked(TRAIN, f"resume={run}", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "sed: unknown key" in done.stderr
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("*")}


def trained(forked: Command, run: Path, *words: str) -> dict[str, Any]:
    done = forked(TRAIN, *SMALL, f"hydra.run.dir={run}", *words, cwd=run.parent)
    assert done.returncode == 0, done.stderr
    assert json.loads((run / "status.json").read_text())["state"] == "finished"
    assert {path.name for path in run.parent.iterdir()} == {run.name}
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["train_seconds"] > 0
    assert "val/miou" in metrics
    return metrics


def test_run_without_callbacks_and_logger(forked: Command, tmp_path: Path) -> None:
    """Lightning puts none of its own in their place."""
    run = tmp_path / "run"
    words = ["callbacks=null", "logger=null", "trainer.limit_test_batches=0"]
    kept = [word for word in SMALL if not word.startswith("callbacks")]
    done = forked(TRAIN, *kept, f"hydra.run.dir={run}", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["train_seconds"] > 0
    assert metrics["last/val/miou"] == metrics["val/miou"]  # the end is what is kept
    assert not any(name.startswith("test/") for name in metrics)
    made = {path.name for path in run.iterdir()} - {".hydra", ".lock"}
    assert made == {"figures", "metrics.json", "status.json", "train.log"}


def test_run_without_history_has_its_numbers(forked: Command, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["callbacks.history=null", "trainer.limit_train_batches=2"]
    metrics = trained(forked, run, *words, "trainer.gradient_clip_val=1")
    assert "last/val/miou" in metrics
    assert not (run / "metrics.csv").exists()
    assert (run / "checkpoints/best.ckpt").exists()


@pytest.mark.parametrize("short", ["fast_dev_run=true", "max_steps=2"])
def test_shortest_runs_keep_a_checkpoint(
    short: str, forked: Command, tmp_path: Path
) -> None:
    """The second one ends before its first validation."""
    run = tmp_path / "run"
    trained(forked, run, f"trainer.{short}")
    for name in ("best", "last"):
        assert (run / f"checkpoints/{name}.ckpt").exists()


def test_debugging_run_starts_from_weights_and_leaves_the_test_split_alone(
    trained: Path, forked: Command, tmp_path: Path
) -> None:
    """A step of no length leaves the weights as they came: the score is theirs.

    Two batches move the running statistics: over seven seeds by -0.0001 with a deviation of
    0.0005, a tenth of the limit. The scores themselves are 0.20 to 0.32.
    """
    run = tmp_path / "run"
    words = ["debug=default", "test=false", f"weights={trained}", "optimizer.lr=1e-30"]
    words += ["trainer.limit_val_batches=null", "callbacks.batch_statistics=null"]
    words += [word for word in QUICK if word.startswith("data")]
    done = forked(TRAIN, *words, f"hydra.run.dir={run}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((run / "metrics.json").read_text())
    assert not any(name.startswith("test/") for name in metrics)
    assert metrics["val/miou"] == pytest.approx(best_of(trained), abs=0.005)

    done = forked(TRAIN, "model=unet", *words, cwd=tmp_path)
    assert done.returncode == 4, done.stderr
    assert f"weights={trained}: none of 103 tensors fit" in done.stderr
    done = forked(TRAIN, "-m", "++sweep.resume=nowhere", *words[1:], cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "sweep.resume: give it without +" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


@pytest.mark.slow
def test_fine_tuning_leaves_frozen_weights_alone_also_after_a_resume(
    trained: Path, forked: Command, tmp_path: Path
) -> None:
    """Bit for bit, with the statistics of their norm; the others are trained further."""
    run = tmp_path / "run"
    words = [f"weights={trained}", "freeze=['stages.[01].*']", *QUICK]
    done = forked(TRAIN, *words, f"hydra.run.dir={run}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "tensors fit" in (run / "train.log").read_text()
    again = [f"resume={run}", "trainer.max_epochs=3", "resume_changed=true"]
    done = forked(TRAIN, *again, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first = read_checkpoint(trained / "checkpoints/best.ckpt")["state_dict"]
    last = read_checkpoint(run / "checkpoints/last.ckpt")["state_dict"]
    for name, value in last.items():
        kept = name.startswith(("network.stages.0.", "network.stages.1."))
        counted = name.endswith("num_batches_tracked")
        assert counted or torch.equal(value, first[name]) == kept, name


def best_of(run: Path) -> float:
    return json.loads((run / "metrics.json").read_text())["val/miou"]


def test_interval_longer_than_an_epoch_is_a_configuration_error(
    forked: Command, tmp_path: Path
) -> None:
    """How long an epoch is, the data say."""
    run = tmp_path / "run"
    words = [*SMALL, f"hydra.run.dir={run}", "trainer.val_check_interval=20"]
    done = forked(TRAIN, *words)
    assert done.returncode == 2, done.stderr
    assert "`val_check_interval` (20) must be" in done.stderr
