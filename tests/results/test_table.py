"""What is read from run folders: the table of runs, and the commands that made them."""

import ast
import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from omegaconf import OmegaConf
from sweep_folders import make_job, make_sweep

import imex_experiments
from imex_experiments.errors import CheckpointError
from imex_experiments.results import runs_table
from imex_experiments.results.comparison import compare
from imex_experiments.results.report import results
from imex_experiments.results.sources import commands
from imex_experiments.results.table import metric_columns, override_columns, varied
from imex_experiments.results.text_tables import best, failures


def test_jobs_are_read_in_natural_order_with_states_and_reasons(tmp_path: Path) -> None:
    for number in (10, 2, 0):
        make_job(tmp_path / f"{number}_seed={number}", seed=number, score=number / 10)
    make_job(tmp_path / "3_model=resnet", model="resnet", alpha=5, state="running")
    make_job(tmp_path / "4_model/layer=x", alpha=5, state="begun")  # a / in its name
    make_job(tmp_path / "11_seed=1", state="failed")
    (tmp_path / "multirun.yaml").write_text("{}")
    runs = runs_table(tmp_path)
    read = runs[["state", "alpha", "test/miou"]].replace({float("nan"): None})
    assert [*read.itertuples(name=None)] == [
        ("0_seed=0", "finished", 1.0, 0.0),
        ("2_seed=2", "finished", 1.0, 0.2),
        ("3_model=resnet", "running", 0.0, None),
        ("4_model/layer=x", "failed", 5.0, None),
        ("10_seed=10", "finished", 1.0, 1.0),
        ("11_seed=1", "failed", 1.0, None),
    ]
    assert [reason for reason in runs["reason"] if reason] == [
        "still running, or killed",
        "not begun, or died before it wrote status.json",
        "loss is nan at step 3",
    ]


def test_h_and_alpha_of_a_network_without_them_are_empty(tmp_path: Path) -> None:
    """Its configuration names neither, and status.json has null."""
    for name, recorded in (("a", None), ("b", 0.25)):
        job = make_job(tmp_path / name)
        config = OmegaConf.load(job / ".hydra/config.yaml")
        config.model = {"_target_": "my_package.Net"}
        OmegaConf.save(config, job / ".hydra/config.yaml")
        status = json.loads((job / "status.json").read_text())
        status |= {"h": recorded, "alpha": None}
        (job / "status.json").write_text(json.dumps(status))
    runs = runs_table(tmp_path / "a", tmp_path / "b")
    assert [*runs["state"]] == ["finished"] * 2
    assert runs["h"].fillna(-1).tolist() == [-1, 0.25]
    assert runs["alpha"].isna().all()


def test_varied_overrides_become_columns_with_the_value_in_force(
    tmp_path: Path,
) -> None:
    """An override that one run was not given counts with its configured value."""
    make_job(tmp_path / "a", words=("optimizer.lr=0.1", "trainer.max_epochs=2"))
    make_job(tmp_path / "b", words=("optimizer.lr=0.2", "trainer.max_epochs=2"))
    c = make_job(tmp_path / "c")  # by default what run a was given
    config = OmegaConf.merge(
        OmegaConf.load(c / ".hydra/config.yaml"),
        {"optimizer": {"lr": 0.1}, "trainer": {"max_epochs": 2}},
    )
    OmegaConf.save(config, c / ".hydra/config.yaml")
    runs = runs_table(*(tmp_path / name for name in "cbaa"))
    assert runs["optimizer.lr"].to_dict() == {"a": "0.1", "b": "0.2", "c": "0.1"}
    assert [*runs["trainer.max_epochs"]] == ["2", "2", "2"]
    assert varied(runs) == ["optimizer.lr"]
    assert "trainer.max_epochs" not in results(runs)


def test_results_are_byte_equal_whenever_and_in_whatever_order_jobs_ran(
    tmp_path: Path,
) -> None:
    jobs = [
        {"model": model, "seed": seed, "score": 0.1 + seed / 3}
        for model in ("imexnet", "resnet")
        for seed in (0, 1)
    ]
    texts = []
    for name, seconds in (("first", 1.25), ("later", 99.5)):
        sweep = tmp_path / name
        made = [job | {"train_seconds": seconds} for job in jobs]
        made[3] |= {"state": "failed"}
        make_sweep(sweep, made, [])
        texts.append(results(runs_table(sweep)).to_csv())
    assert texts[0] == texts[1]
    assert "seconds" not in texts[0]
    rows = list(csv.DictReader(texts[0].splitlines()))
    assert rows[1]["test/miou"] == repr(0.1 + 1 / 3)
    assert rows[3]["reason"] == "loss is nan at step 3"


@pytest.mark.parametrize(
    "damage",
    [
        ("metrics.json", '{"val/miou": 0.'),
        ("metrics.json", "[1, 2]"),
        ("metrics.json", '{"val/miou": "high"}'),
        ("metrics.json", None),
        ("status.json", "not JSON"),
        ("status.json", '{"state": "finished"}'),
        (".hydra/config.yaml", "a: [b"),
        (".hydra/config.yaml", "a: 1"),
    ],
)
def test_corrupt_run_is_named_and_skipped_and_the_rest_goes_on(
    damage: tuple[str, str | None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_sweep(tmp_path, [{"seed": 0}, {"seed": 1, "score": 0.7}], [])
    name, content = damage
    if content is None:
        (tmp_path / "0_seed=0" / name).unlink()
    else:
        (tmp_path / "0_seed=0" / name).write_text(content)
    comparison = compare(runs_table(tmp_path))
    (warning,) = caplog.messages
    assert "0_seed=0" in warning
    assert warning.isprintable()
    assert name.split("/")[0] in warning
    (failure,) = failures(comparison.runs).cells.to_dict("records")
    assert (failure["run"], failure["state"]) == ("0_seed=0", "unreadable")
    assert best(comparison).cells["test/miou"].tolist() == ["0.7000"]


def test_folders_that_are_no_runs_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/notes.txt").write_text("x")
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep/multirun.yaml").write_text("{}")
    for name, complaint in {
        "nowhere": "no such folder",
        "empty": "an empty folder",
        "foreign": r"neither \.hydra/ nor sweep\.yaml",
        "sweep": "no job has begun",
    }.items():
        with pytest.raises(CheckpointError, match=f"{name}: .*{complaint}"):
            runs_table(tmp_path / name)


def test_commands_can_be_pasted_into_a_shell(tmp_path: Path) -> None:
    sweep = make_sweep(
        tmp_path / "s", [{}], ["model=imexnet,resnet", "data.root='a b'"]
    )
    run = make_job(tmp_path / "r", words=("optimizer.lr=0.1",))
    assert commands([sweep, run]) == [
        """python train.py -m model=imexnet,resnet 'data.root='"'"'a b'"'"''""",
        "python train.py model=imexnet model.alpha=1.0 model.h=1.0 seed=0 optimizer.lr=0.1",
    ]


def test_alpha_that_training_varies_makes_a_network_of_its_own(tmp_path: Path) -> None:
    """It starts where a fixed alpha of 100 stays: the two are not seeds of one setting."""
    (tmp_path / "multirun.yaml").write_text("{}")
    make_job(tmp_path / "0_fixed", alpha=100.0)
    for seed in (0, 1):
        folder = make_job(tmp_path / f"{seed + 1}_auto", alpha="auto", seed=seed)
        status = json.loads((folder / "status.json").read_text())
        (folder / "status.json").write_text(json.dumps(status | {"alpha": 100.0}))
    make_job(tmp_path / "3_h", h="learned", state="begun")
    runs = runs_table(tmp_path)
    assert [*runs["h"]] == [1.0] * 4
    comparison = compare(runs)
    networks = comparison.settings["model"][comparison.setting]
    assert networks.value_counts().to_dict() == {
        "imexnet": 1,
        "imexnet, alpha auto": 2,
        "imexnet, h learned": 1,
    }


def test_columns_are_those_that_are_promised_whatever_a_folder_says(
    tmp_path: Path,
) -> None:
    """Neither an override nor a metric takes the name of a column of ours."""
    make_job(tmp_path / "a", words=("folder=1", "setting=2"), reason=3.0)
    make_job(tmp_path / "b", words=("optimizer.lr=0.5",), **{"val/extra": 4})
    runs = imex_experiments.runs_table(tmp_path / "a", tmp_path / "b")
    assert [*runs.columns] == [
        *("folder", "model", "data", "integrator", "seed", "h", "alpha"),
        *("optimizer.lr", "state", "reason", "monitor", "mode"),
        *("flops", "parameters", "test/miou", "train_seconds"),
        *("val/extra", "val/loss", "val/miou"),
    ]
    assert override_columns(runs) == ["optimizer.lr"]
    assert metric_columns(runs)[0] == "flops"
    assert runs[metric_columns(runs)].dtypes.eq("float64").all()
    assert runs["val/extra"].isna().tolist() == [True, False]
    assert runs["folder"].tolist() == [str(tmp_path / "a"), str(tmp_path / "b")]
    assert runs["state"].tolist() == ["finished", "finished"]


def test_a_single_run_and_the_package_do_without_pandas() -> None:
    """Its import would cost every run half a second, and only a sweep's end needs it."""
    package = ROOT / "imex_experiments"
    readers = {*(package / "results").glob("*.py"), package / "plots/sweep.py"}
    readers -= {package / "results/__init__.py", package / "results/sources.py"}
    named = {".".join(f.relative_to(ROOT).with_suffix("").parts) for f in readers}
    others = {*(package / "commands").glob("*.py"), package / "interactive.py"}
    others -= {package / "commands/train.py"}
    for path in {*package.rglob("*.py")} - readers - others:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {getattr(node, "module", ""), *(a.name for a in node.names)}
                assert not names & {"pandas", *named}, path


@pytest.mark.slow
def test_pandas_is_not_there_once_a_run_can_start() -> None:
    code = (
        "import sys, imex_experiments.commands.train, imex_experiments.sweeps.hooks\n"
    )
    code += "from imex_experiments.results.sources import sweep_words\n"
    code += "print('pandas' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout.strip() == "False", done.stderr
