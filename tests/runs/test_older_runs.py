"""A run folder of the code before its rooms were moved goes on to work.

`before_the_house` is a run of three epochs that SIGTERM ended after the second one, and
`labels.npy` what its code predicted; `before_the_house_whole.json` are the metrics of the
same run undisturbed.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, Command, rounding

from imex_experiments import load_run
from imex_experiments.runs.load import load_config, load_data, read_history
from imex_experiments.training.evaluation import evaluate

HERE = Path(__file__).parent
OLD = HERE / "before_the_house"

SUM = 9 * 8 + 2 * (24 + 24)
"""Roundings behind a logit: taps of a convolution, rows and columns of an image."""


def test_it_predicts_the_same_labels() -> None:
    images, _ = load_data(OLD).samples("val", 4)
    task = load_run(OLD)
    with torch.no_grad():
        logits = task(images)
    first, second = logits.topk(2, 1).values.unbind(1)
    clear = first - second > rounding(torch.float32, SUM, float(logits.abs().max()))
    assert clear.float().mean() > 0.9
    labels = torch.from_numpy(np.load(OLD / "labels.npy"))
    assert torch.equal(task.predict(images)[clear], labels[clear])


def test_it_evaluates_as_it_did() -> None:
    """`best.ckpt` is of the first epoch, whose numbers are the first row of metrics.csv."""
    then = float(read_history(OLD)[0]["val/loss"])
    now = evaluate(load_run(OLD), load_data(OLD), load_config(OLD).trainer)["val/loss"]
    assert now == pytest.approx(then, rel=rounding(torch.float32, SUM))


def test_it_resumes(forked: Command, tmp_path: Path) -> None:
    """Bit for bit on the machine that made it; elsewhere four steps round otherwise.

    A step moves a weight by the learning rate at most, whose sum over the four steps is
    0.006: a loss of about one cannot differ by more than some percent. Another logger
    changes nothing of it.
    """
    run = tmp_path / "run"
    shutil.copytree(OLD, run)
    with (run / ".hydra/overrides.yaml").open("a") as file:
        file.write("- logger.name=curves\n")  # of when a run had one logger
    words = [f"resume={run}", "logger=[tensorboard,csv]"]
    done = forked(str(ROOT / "train.py"), *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {"curves", "csv"} <= {path.name for path in run.iterdir()}
    rows = read_history(run)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    before = (OLD / "metrics.csv").read_text()
    assert (run / "metrics.csv").read_text().startswith(before)
    expected = json.loads((HERE / "before_the_house_whole.json").read_text())
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics.keys() == expected.keys()
    assert metrics["last/val/loss"] == pytest.approx(
        expected["last/val/loss"], rel=0.05
    )
