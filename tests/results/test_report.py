"""The folder that a sweep's report is written to."""

import csv
from collections.abc import Sequence
from math import nan
from pathlib import Path

import pytest
from PIL import Image
from sweep_folders import make_job, make_sweep

from imex_experiments.errors import CheckpointError, StorageError
from imex_experiments.results import runs_table
from imex_experiments.results.comparison import compare
from imex_experiments.results.figures import curves
from imex_experiments.results.report import write_report


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def report(sources: Sequence[Path], out: Path) -> None:
    write_report(compare(runs_table(*sources)), sources, out)


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """alpha x h x seed of imexnet, one cell diverged at one seed, and resnet."""
    jobs: list[dict[str, object]] = [
        {"alpha": alpha, "h": h, "seed": seed, "score": score + 0.1 * seed}
        for (alpha, h), score in {(1, 0.5): 0.1, (1, 1): 0.2, (9, 1): 0.6}.items()
        for seed in (0, 1)
    ]
    jobs[3] |= {"state": "failed"}
    jobs += [{"model": "resnet", "h": 1, "seed": seed, "score": 0.3} for seed in (0, 1)]
    words = ["model=imexnet,resnet", "model.alpha=1,9"]
    return make_sweep(tmp_path / "sweep", jobs, words)


def test_report_is_complete(sweep: Path) -> None:
    report([sweep], sweep)
    assert len(rows(sweep / "results.csv")) == 8
    for name in ("heat_map", "learning_curves", "cost"):
        with Image.open(sweep / f"{name}.png") as image:
            assert image.size[0] > 300
    summary = (sweep / "summary.md").read_text()
    assert "python train.py -m model=imexnet,resnet model.alpha=1,9" in summary
    assert "| imexnet | 1 | 9 | 0.6500 ± 0.0707 | 0.6500 ± 0.0707 | 2 |" in summary
    assert "| imexnet - resnet | 1 | 9 | +0.3500 | -0.2853 ... +0.9853 | 2 |" in summary
    assert "| 3_seed=1 | failed | loss is nan at step 3 |" in summary
    assert "8 jobs, 7 finished" in summary


def test_numbers_beside_the_pictures_are_those_of_the_jobs(sweep: Path) -> None:
    report([sweep], sweep)
    cells = {
        (row["model"], row["alpha"], row["h"]): (row["mean"], row["seeds"], row["lost"])
        for row in rows(sweep / "heat_map.csv")
    }
    assert cells == {
        ("imexnet", "1.0", "0.5"): (repr((0.1 + 0.2) / 2), "2", "0"),
        ("imexnet", "1.0", "1.0"): ("0.2", "1", "1"),
        ("imexnet", "9.0", "1.0"): (repr((0.6 + 0.7) / 2), "2", "0"),
        ("resnet", "0.0", "1.0"): ("0.3", "2", "0"),
    }
    curve = [
        (row["epoch"], float(row["mean"]), float(row["sd"]))
        for row in rows(sweep / "learning_curves.csv")
        if row["curve"] == "imexnet, h=1, alpha=9"
    ]
    assert [epoch for epoch, _, _ in curve] == ["1", "2", "3", "4"]
    assert curve[1][1:] == pytest.approx((0.325, 0.05 / 2**0.5))
    front = [row["on the front of parameters"] for row in rows(sweep / "cost.csv")]
    assert front == ["False", "False", "True", "False"]


def test_report_again_is_byte_equal(sweep: Path, tmp_path: Path) -> None:
    """Also from its jobs in another order, into another folder."""
    report([sweep], sweep)
    jobs = sorted((p.parent for p in sweep.rglob(".hydra")), reverse=True)
    report(jobs, tmp_path / "again")
    for name in ("results.csv", "heat_map.csv", "learning_curves.csv", "cost.csv"):
        assert (sweep / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_picture_without_content_is_left_out_and_said_so(tmp_path: Path) -> None:
    run, out = make_job(tmp_path / "run"), tmp_path / "out"
    (run / "metrics.csv").unlink()
    report([run], out)
    assert not (out / "heat_map.png").exists()
    assert not (out / "learning_curves.png").exists()
    summary = (out / "summary.md").read_text()
    assert "No heat_map: it needs runs that differ in alpha or h." in summary
    assert "No learning_curves: it needs the metrics.csv" in summary
    assert "No cost" not in summary
    assert "cost.png" in summary
    assert "learning_curves.png" not in summary


def test_nothing_is_written_where_nothing_finished(tmp_path: Path) -> None:
    run = make_job(tmp_path / "run", state="failed")
    with pytest.raises(CheckpointError, match="none of 1 runs is finished"):
        report([run], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(StorageError, match=r"out=.*out: cannot be written"):
        report([make_job(tmp_path / "run")], tmp_path / "out")


def test_curve_has_the_epochs_of_all_runs_and_no_run_that_diverged(
    tmp_path: Path,
) -> None:
    """Repeats of seed 0 are averaged first; one of them ends at epoch 3, seed 2 is NaN."""
    for number, (seed, score) in enumerate([(0, 0.2), (0, 0.4), (1, 0.5), (2, nan)]):
        make_job(tmp_path / f"{number}", seed=seed, score=score)
    history = tmp_path / "1/metrics.csv"
    history.write_text("".join(history.read_text().splitlines(True)[:-1]))
    comparison = compare(runs_table(*tmp_path.iterdir()))
    numbers = curves(comparison, {0: "imexnet"}, "val/miou")
    assert numbers["epoch"].tolist() == [1, 2, 3]
    assert numbers["seeds"].tolist() == [2, 2, 2]
    assert numbers["mean"].tolist() == pytest.approx([0.1, 0.2, 0.3])  # of 0.3 and 0.5
    assert numbers["sd"].iloc[1] == pytest.approx(0.05 * 2**0.5)
