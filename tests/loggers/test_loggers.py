"""What each kind of logger is given, read back from its files."""

import csv
import sqlite3
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import ROOT, Command
from torture import SMALL

from imex_experiments.errors import CheckpointError
from imex_experiments.loggers import CsvLogger

TRAIN = str(ROOT / "train.py")
SCALARS = {"train/loss", "val/loss", "val/miou", "best/val/miou", "test/miou"}
HPARAMS = {"model", "data", "seed", "lr", "batch_size", "epochs", "h", "alpha"}


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "csv/metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def logged(logger: CsvLogger, steps: Iterable[int]) -> None:
    for step in steps:
        logger.log_metrics({"train/loss": step / 8}, step)
        if step % 3 == 2:
            logger.log_metrics({"val/loss": step / 4}, step)
        logger.save()
    logger.finalize("success")


def test_rows_of_a_resumed_run_are_those_of_an_undisturbed_one(tmp_path: Path) -> None:
    """Lightning's CSVLogger deletes the rows of before."""
    logged(CsvLogger(tmp_path / "whole", "csv", ""), range(9))
    logged(CsvLogger(tmp_path / "parts", "csv", ""), range(7))
    with (tmp_path / "parts/csv/metrics.csv").open("a") as file:
        file.write("0.5,")  # a row that a kill cut off
    resumed = CsvLogger(tmp_path / "parts", "csv", "")
    resumed.experiment.discard_from(5)
    logged(resumed, range(5, 9))
    whole, parts = rows(tmp_path / "whole"), rows(tmp_path / "parts")
    assert len(whole) == 9 + 3
    assert parts == whole


def test_a_file_that_is_no_table_of_steps_is_refused(tmp_path: Path) -> None:
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv/metrics.csv").write_text("a,b\n1,2\n")
    with pytest.raises(
        CheckpointError, match=r"csv/metrics\.csv: not a table of steps"
    ):
        CsvLogger(tmp_path, "csv", "").experiment.discard_from(1)


@pytest.fixture
def run(
    request: pytest.FixtureRequest, forked: Command, python: Command, tmp_path: Path
) -> Path:
    """A small run with the loggers of the test's parameter."""
    for package in ("mlflow", "wandb"):
        if package in request.param and find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install -e '.[loggers]'")
    start = python if "wandb" in request.param else forked  # it ends its run `atexit`
    words = [*SMALL, f"logger={request.param}", f"hydra.run.dir={tmp_path}/run"]
    done = start(TRAIN, *words, cwd=tmp_path, WANDB_MODE="offline")
    assert done.returncode == 0, done.stderr
    return tmp_path / "run"


@pytest.mark.parametrize("run", ["csv"], indirect=True)
def test_csv_has_every_scalar_and_the_hyperparameters(run: Path) -> None:
    columns = rows(run)[0].keys()
    assert columns >= SCALARS
    (kept,) = (row for row in rows(run) if row["test/miou"])
    assert kept["best/val/miou"]
    text = (run / "csv/hparams.yaml").read_text()
    assert {line.partition(":")[0] for line in text.splitlines()} == HPARAMS
    assert not (run / "tensorboard").exists()


@pytest.mark.slow
@pytest.mark.parametrize("run", ["[tensorboard,mlflow]"], indirect=True)
def test_mlflow_has_scalars_figures_and_hyperparameters(run: Path) -> None:
    with sqlite3.connect(run.parent / "mlflow.db") as store:
        keys = {key for (key,) in store.execute("select key from metrics")}
        params = {key for (key,) in store.execute("select key from params")}
        (status,) = store.execute("select status from runs")
    assert keys >= SCALARS
    assert params == HPARAMS
    assert status == ("FINISHED",)
    figures = (run.parent / "mlruns").rglob("val~segmentation*.png")
    assert len(list(figures)) == 2  # a figure for each validation
    assert (run / "tensorboard").exists()


@pytest.mark.slow
@pytest.mark.parametrize("run", ["[tensorboard,wandb]"], indirect=True)
def test_wandb_has_scalars_figures_and_hyperparameters(run: Path) -> None:
    (record,) = run.glob("wandb/offline-run-*/run-*.wandb")
    content = record.read_bytes()
    for name in SCALARS | HPARAMS:
        assert name.encode() in content
    figures = run.glob("wandb/offline-run-*/files/media/images/val/segmentation_*.png")
    assert len(list(figures)) == 2
    assert (run / "tensorboard").exists()
