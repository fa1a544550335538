"""Searches as a user runs them: one process or several, which may be killed."""

import csv
import json
import multiprocessing
import os
import runpy
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import IO, Any

import optuna
import pytest
from conftest import ROOT, Command
from hydra.core.global_hydra import GlobalHydra
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from imex_experiments.errors import CheckpointError, ConfigError
from imex_experiments.installed import TRAIN
from imex_experiments.process.tied import PARENT_WATCHED
from imex_experiments.runs.layout import HISTORY, LAST
from imex_experiments.sweeps import jobs, search, study

TUNE = str(ROOT / "scripts" / "tune.py")
POINTS = [
    *("experiment=implicit_function1d", "data.train=20", "data.batch_size=20"),
    *("trainer.max_epochs=2", "trainer.check_val_every_n_epoch=1"),
]


def fork_runs() -> None:
    """Let runs be forks of their search, tied to it as `run_tied` ties a child."""

    def run_forked(command: Sequence[str], output: IO[str]) -> int:
        stdin, held = os.pipe()
        (Path(output.name).parent / "pid").write_text(str(os.getpid()))

        def run() -> None:
            os.close(held)
            os.dup2(stdin, 0)
            os.environ[PARENT_WATCHED] = "1"
            GlobalHydra.instance().clear()
            sys.stdout = sys.stderr = output
            sys.argv = list(command[1:])
            runpy.run_path(command[1], run_name="__main__")

        process = multiprocessing.get_context("fork").Process(target=run)
        process.start()
        os.close(stdin)
        process.join()
        os.close(held)
        assert process.exitcode is not None
        return process.exitcode

    jobs.run_tied = run_forked  # type: ignore[assignment]


def stored(folder: Path) -> optuna.Study:
    """The study of a folder, as Optuna and its dashboard read it."""
    backend = JournalFileBackend(str(folder / study.JOURNAL))
    return optuna.load_study(study_name="study", storage=JournalStorage(backend))


def test_a_study_is_searched_and_goes_on(forked: Command, tmp_path: Path) -> None:
    """With files of one's own, which the runs need too."""
    (mine := tmp_path / "own/experiment/mine.yaml").parent.mkdir(parents=True)
    mine.write_text("# @package _global_\ndefaults: [implicit_function1d]\n")
    words = ["study=lr", "optimizer.lr=choice(1e30,0.01)", "--config-dir", "own"]
    words += ["experiment=mine", *POINTS[1:]]
    for trials in ("trials=1", "trials=2"):
        done = forked(TUNE, *words, trials, cwd=tmp_path, before=fork_runs)
        assert done.returncode == 0, done.stderr
    found = stored(tmp_path / "outputs/tune/lr")
    assert found.direction.name == "MINIMIZE"
    states = {trial.params["optimizer.lr"]: trial.state.name for trial in found.trials}
    assert states == {"1e+30": "PRUNED", "0.01": "COMPLETE"}
    run = tmp_path / f"outputs/tune/lr/{found.best_trial.number}"
    metrics = json.loads((run / "metrics.json").read_text())
    status = json.loads((run / "status.json").read_text())
    assert found.best_value == metrics[status["monitor"]]
    refused = forked(TUNE, *words, "model.steps=2", cwd=tmp_path)
    assert refused.returncode == 2, refused.stderr
    (line,) = refused.stderr.splitlines()
    assert "has trials with other overrides (model.steps=2); choose another" in line


class KilledError(Exception):
    """The end of a process, in a test that has one process alone."""


def scored(monkeypatch: pytest.MonkeyPatch, killed_at: int | None = None) -> None:
    """Let a score be a function of the point, without a run."""

    def run(of: study.Study, trial: FrozenTrial, *_: object) -> None:
        if trial.number == killed_at:
            raise KilledError
        value = -((float(trial.params["model.alpha"]) - 30.0) ** 2)
        of.end(trial, TrialState.COMPLETE, value)

    monkeypatch.setattr(search, "_run", run)


def test_a_study_asks_the_same_points_however_often_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond TPE's ten random trials; stopped between trials, and in the midst of one."""
    words = ["model.alpha=interval(1,100)"]
    found = {}
    for name, stops in (("whole", []), ("stopped", [1, 2, 11])):
        for at in stops:
            scored(monkeypatch, killed_at=at)
            with pytest.raises(KilledError):
                search.tune(TRAIN, tmp_path / name, words, 13)
        scored(monkeypatch)
        trials = search.tune(TRAIN, tmp_path / name, words, 13).optuna.trials
        found[name] = [trial.params["model.alpha"] for trial in trials]
    assert found["stopped"] == found["whole"]
    assert len(set(found["whole"])) == 13


def test_a_space_of_few_points_is_searched_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TPE alone proposes some of 12 points several times."""
    scored(monkeypatch)
    words = ["model.alpha=range(1,30,5)", "model.h=choice(0.5,1)"]
    done = search.tune(TRAIN, tmp_path / "few", words, 100)
    points = {tuple(trial.params.values()) for trial in done.optuna.trials}
    assert points == {(a, h) for a in range(1, 30, 5) for h in ("0.5", "1")}
    assert len(done.optuna.trials) == 12
    with (tmp_path / "few/results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["trial"] for row in rows] == [str(n) for n in range(12)]
    assert {row["state"] for row in rows} == {"complete"}


def test_a_trial_is_of_one_process_and_after_that_of_the_next(tmp_path: Path) -> None:
    """Also where a process was killed while it added a line to the journal."""
    space, _ = search.parsed(["model.alpha=interval(1,100)"])

    def opened() -> study.Study:
        return study.Study(tmp_path / "shared", "maximize", ["words"])

    first, second = opened(), opened()
    with (
        closing(first.trials(space, 9)) as own,
        closing(second.trials(space, 9)) as its,
    ):
        assert (next(own).number, next(its).number) == (0, 1)
        left = next(its)  # its trial 1 goes back, unfinished, and is the first again
        assert left.number == 1
    with (tmp_path / "shared" / study.JOURNAL).open("a") as journal:
        journal.write('{"op_code": 4, "worker')
    with closing(opened().trials(space, 9)) as third:
        again = next(third)
        assert again.number == 0
        first.end(again, TrialState.FAIL)
        assert next(third).params == left.params
    assert [trial.state.name for trial in stored(tmp_path / "shared").trials] == [
        *("FAIL", "RUNNING")
    ]


@pytest.mark.parametrize("line", ["[]", "{}", "no JSON"])
def test_a_journal_that_no_search_wrote_is_refused(line: str, tmp_path: Path) -> None:
    (tmp_path / study.JOURNAL).write_text(f"{line}\n")
    with pytest.raises(CheckpointError, match=r"study\.journal: damaged"):
        study.Study(tmp_path, "maximize", [])


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    """Its runs would be taken for trials, as those of an older study would."""
    (tmp_path / "study.db").touch()
    with pytest.raises(ConfigError, match=r"has files, but no study\.journal; choose"):
        study.Study(tmp_path, "maximize", [])


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["model.h=1"], "nothing to tune"),
        (["model.h=glob(*)"], r"use choice\(...\), range\(...\) or interval\(...\)"),
        (
            ["model.h=interval(1,inf)"],
            r"model.h=interval\(1,inf\): expected finite ends",
        ),
        (["model.h=interval(2,1)"], r"model.h=interval\(2,1\): .*low.*high"),
        (["model.h=tag(log,interval(0,1))"], r"model.h=tag.*low.* 0"),
        (["model.steps=range(3,3)"], r"range\(3,3\): expected range\(<first>,"),
        (["model.steps=range(0.5,3)"], "a range is one of integers"),
        (["model.h=choice(1,2)", "resume=x"], "resume=x: not for the trials"),
        (["model.h=choice(1,2)", "~hydra.callbacks.hooks"], "it stays"),
    ],
)
def test_a_search_that_cannot_work_is_refused(words: list[str], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        search.parsed(words)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["model.h=interval(-1,1)"], r"point model.h=-1.0: model: h must be > 0"),
        (
            ["model.h=interval(1,2)", "model.steps=range(0,2)"],
            r"point .*steps=0: model",
        ),
        (["model.alpha=choice(1,x)"], "point model.alpha=x: "),
    ],
)
def test_a_point_that_cannot_work_is_refused_before_the_first_run(
    words: list[str], complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        search.tune(TRAIN, tmp_path / "study", words, 2)
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["model.h=choice(1,2)", "trials=0"], "trials must be >= 1, got 0"),
        (["-m", "model.h=choice(1,2)"], "--multirun: no option of this command"),
        (
            ["--config-dir=none", "model.h=choice(1,2)"],
            "--config-dir=none: no such fold",
        ),
    ],
)
def test_a_command_line_that_cannot_work_is_refused(
    words: list[str], complaint: str, forked: Command, tmp_path: Path
) -> None:
    done = forked(TUNE, *words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert complaint in line
    assert not (tmp_path / "outputs").exists()


def start(cwd: Path, words: Sequence[str], said: Path) -> Any:
    """Start a search as a fork of this process."""

    def command() -> None:
        os.chdir(cwd)
        fork_runs()
        sys.argv = [TUNE, *words]
        with said.open("a") as sys.stdout:
            sys.stderr = sys.stdout
            runpy.run_path(TUNE, run_name="__main__")

    process = multiprocessing.get_context("fork").Process(target=command)
    process.start()
    return process


def until(true: Callable[[], Any], process: Any, seconds: float = 600.0) -> Any:
    """Wait until a function of no arguments returns something."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end
        assert process.exitcode is None
        time.sleep(0.01)
    return found


@pytest.mark.slow
def test_two_searches_of_one_study_one_killed_three_times(tmp_path: Path) -> None:
    """Thirty distinct points; the runs of the killed one are resumed."""
    folder = tmp_path / "outputs/tune/shared"
    words = ["study=shared", "trials=30", "optimizer.lr=tag(log,interval(1e-3,0.1))"]
    words += ["model.steps=range(2,6)", *POINTS, "model.integrator.theta=0"]
    words += ["trainer.max_epochs=8", "logger=none", "callbacks.figures=null"]
    said = tmp_path / "said"
    staying = start(tmp_path, words, said)
    killed: dict[Path, str] = {}

    def in_training(pid: int) -> Path | None:
        """The run of a process that has a new checkpoint and is not at its end."""
        for own in folder.glob("*/pid"):
            run = own.parent
            if own.read_text() == str(pid) and (run / LAST).exists():
                rows = (run / HISTORY).read_text().count("\n")
                if killed.get(run, "").count("\n") < rows < 8:
                    return run
        return None

    for _ in range(3):
        other = start(tmp_path, words, said)
        run = until(lambda: in_training(other.pid), other)  # noqa: B023
        killed[run] = (run / HISTORY).read_text()
        other.kill()
        other.join()
    other = start(tmp_path, words, said)
    for process in (staying, other):
        process.join(3000)
        assert process.exitcode == 0, said.read_text()
    trials = stored(folder).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 30
    assert len({tuple(trial.params.values()) for trial in trials}) == 30
    with (folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["score"]) for row in rows] == [trial.value for trial in trials]
    for run, before in killed.items():
        assert (run / HISTORY).read_text().startswith(before), "it was begun anew"
        epochs = [line.split(",")[0] for line in (run / HISTORY).read_text().split()]
        assert epochs == ["epoch", *(str(n) for n in range(1, 9))]
