"""Sweeps on a real SLURM that the tests bring up: what its users do, and what it does to jobs.

Trainings stop at gates (see gates.py), so that they are disturbed within an epoch however
fast the machine is.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from cluster import Slurm, missing, running
from conftest import ROOT, Command
from torture import SMALL, fingerprint

pytestmark = [
    pytest.mark.engines,
    pytest.mark.skipif(bool(missing()), reason=missing()),
]

TRAIN = str(ROOT / "train.py")
GATED = [
    *(word for word in SMALL if "every_steps" not in word),
    *("+callbacks.gate._target_=gates.Gate", "allow=[gates]"),
]
"""A run of two epochs of four steps, which is saved within an epoch by a signal alone."""

ON_SLURM = [
    "hydra/launcher=slurm",
    *("hydra.launcher.timeout_min=10", "hydra.launcher.mem_gb=2"),
    *("hydra.launcher.cpus_per_task=1", "hydra.launcher.gpus_per_node=0"),
]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with running(tmp_path_factory.mktemp("slurm")) as found:
        yield found


@pytest.fixture
def gates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the gates of this test, all of them open."""
    (folder := tmp_path / "gates").mkdir()
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("GATES", str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    return folder


Launch = Callable[..., "Launcher"]


@pytest.fixture
def launch(slurm: Slurm, gates: Path, tmp_path: Path) -> Iterator[Launch]:
    """Start launchers, which are killed at the end of the test."""
    started: list[Launcher] = []

    def start(*words: str) -> Launcher:
        started.append(Launcher(slurm, tmp_path, *words))
        return started[-1]

    yield start
    for launcher in started:
        launcher.process.kill()
        launcher.process.wait()


class Launcher:
    """A launcher of a sweep that is running, and what it has printed."""

    def __init__(self, slurm: Slurm, cwd: Path, *words: str) -> None:
        self.cwd, self.out, self.err = cwd, cwd / "stdout", cwd / "stderr"
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, TRAIN, *words],
                cwd=cwd,
                env={**os.environ, "COLUMNS": "160", **slurm.environment},
                stdout=out,
                stderr=err,
            )

    def end(self) -> int:
        return self.process.wait(600)

    @property
    def sweep(self) -> Path:
        (sweep,) = (self.cwd / "outputs/sweeps").iterdir()
        return sweep

    def job(self, seed: int) -> Path:
        (job,) = self.sweep.glob(f"*_seed={seed}")
        return job

    def status(self, seed: int) -> dict[str, Any]:
        return json.loads((self.job(seed) / "status.json").read_text())

    def id_of(self, seed: int) -> str:
        """SLURM's id of the job that is training."""
        array = re.findall(r"SLURM array (\d+):", self.out.read_text())[-1]
        return f"{array}_{self.job(seed).name.partition('_')[0]}"

    def process_of(self, seed: int) -> int:
        """Id of the process that trains."""
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):  # ended by now
                words = path.read_text(errors="replace").split("\0")
                place = [word for word in words if word.startswith("hydra.run.dir=")]
                if place and self.job(seed).name in place[0]:
                    return int(path.parent.name)
        raise AssertionError(f"{self.job(seed)} is not trained")


def until(found: Callable[[], object], seconds: float = 600.0) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end
        time.sleep(0.1)


def close(gates: Path, *names: str) -> list[Path]:
    """Close gates; return the files that say that a training waits there."""
    for name in names:
        (gates / name).touch()
    return [gates / f"{name}.reached" for name in names]


def open_all(gates: Path) -> None:
    for gate in gates.iterdir():
        gate.unlink()


def test_every_fate_of_a_job_is_answered_and_resume_ends_as_if_undisturbed(
    slurm: Slurm, launch: Launch, gates: Path, forked: Command, tmp_path: Path
) -> None:
    """One job ends well. The others are cancelled while they train and while they wait, put
    back into the queue, and killed: the training itself, and the process of the job.
    """
    words = ["-m", "seed=0,1,2,3,4,5", "data.num_workers=1", *GATED]
    waiting = close(gates, "1_2", "2_6", "3_2", "4_2")
    sweep = launch(*words, *ON_SLURM)
    until(lambda: "SLURM array" in sweep.out.read_text() or sweep.process.poll())
    slurm("scancel", sweep.id_of(5))
    cancelled, requeued, killed, orphaned = waiting
    until(cancelled.exists)
    slurm("scancel", sweep.id_of(1))
    until(requeued.exists)
    slurm("scontrol", "requeue", sweep.id_of(2))
    until(killed.exists)
    os.kill(sweep.process_of(3), signal.SIGKILL)
    until(orphaned.exists)
    child = Path(f"/proc/{sweep.process_of(4)}/stat").read_text()
    os.kill(int(child.rpartition(")")[2].split()[1]), signal.SIGKILL)
    assert sweep.end() == 1, sweep.err.read_text()

    said, told = sweep.out.read_text(), sweep.err.read_text()
    assert len(re.findall(r"job \d \(seed=\d\) starts", said)) == 6
    assert "job 0 (seed=0): val/miou" in said
    table = pd.read_csv(sweep.sweep / "results.csv", index_col="run")
    states = dict(zip(table["seed"], table["state"], strict=True))
    ended = {1: "interrupted", 3: "failed", 4: "interrupted", 5: "interrupted"}
    assert states == {0: "finished", 2: "finished", **ended}
    reasons = {1: "was cancelled", 3: "killed by SIGKILL", 5: "was cancelled"}
    for seed, reason in reasons.items():
        assert reason in sweep.status(seed)["reason"]
        assert reason in (sweep.sweep / "summary.md").read_text()
    place = sweep.sweep.relative_to(tmp_path)
    assert told.splitlines() == [
        "error: 4 of 6 jobs have no result; run only those with: "
        f"python train.py sweep.resume={place} 'allow=[gates]'"
    ]

    open_all(gates)
    finished = [sweep.status(seed) for seed in (0, 2)]
    again = launch(f"sweep.resume={place}", "allow=[gates]")
    assert again.end() == 0, again.err.read_text()
    assert [again.status(seed) for seed in (0, 2)] == finished
    assert "4 jobs" in again.out.read_text()
    (tmp_path / "whole").mkdir()
    done = forked(TRAIN, *words, cwd=tmp_path / "whole", GATES=str(gates))
    assert done.returncode == 0, done.stderr
    (whole,) = tmp_path.glob("whole/outputs/sweeps/*")
    same, expected = (sweep / "results.csv" for sweep in (again.sweep, whole))
    assert same.read_bytes() == expected.read_bytes()
    for seed in (1, 2):  # saved within an epoch
        job = again.job(seed)
        assert fingerprint(job) == fingerprint(whole / job.name)


def test_a_time_limit_within_an_epoch_twice_changes_no_bit(
    slurm: Slurm, launch: Launch, gates: Path, forked: Command, tmp_path: Path
) -> None:
    """The first puts the job back into the queue, the second one ends it, then it is resumed.

    The limit of the job is lowered when it has begun to train: SLURM knows minutes alone.
    """
    limits = [f"hydra.launcher.{k}" for k in ("signal_delay_s=60", "max_num_timeout=1")]
    reached = close(gates, "7_2", "7_5")
    sweep = launch("-m", "seed=choice(7)", *GATED, *ON_SLURM, *limits)
    for number, place in enumerate(reached, 1):
        until(place.exists)
        job = f"JobId={sweep.id_of(7)}"
        *_, minutes, seconds = slurm("squeue", "-ho", "%M").strip().split(":")
        soon = int(minutes) + (2 if int(seconds) > 20 else 1)
        slurm("scontrol", "update", job, f"TimeLimit={soon}")
        until(lambda n=number: sweep.out.read_text().count("its time limit") == n)
        with suppress(subprocess.CalledProcessError):  # it has ended the second time
            slurm("scontrol", "update", job, "TimeLimit=10")
    assert sweep.end() == 1, sweep.err.read_text()
    status = sweep.status(7)
    assert (status["state"], status["exit_code"]) == ("interrupted", 143)
    assert "reached its time limit 2 times" in status["reason"]
    assert status["reason"] in (sweep.sweep / "summary.md").read_text()

    again = launch(f"sweep.resume={sweep.sweep}", "allow=[gates]")
    assert again.end() == 0, again.err.read_text()
    open_all(gates)
    whole = tmp_path / "whole"
    done = forked(TRAIN, "seed=7", *GATED, f"hydra.run.dir={whole}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert fingerprint(sweep.job(7)) == fingerprint(whole)


def test_jobs_outlive_a_launcher_that_is_killed_and_end_with_one_that_is_interrupted(
    slurm: Slurm, launch: Launch, gates: Path
) -> None:
    first, second = close(gates, "0_2", "1_2")
    killed = launch(
        *("-m", "seed=0,1", *GATED), *ON_SLURM, "hydra.launcher.array_parallelism=1"
    )
    until(first.exists)
    killed.process.kill()
    killed.process.wait()
    ended = launch(f"sweep.resume={killed.sweep}", "allow=[gates]")
    until(lambda: "is still there" in ended.out.read_text())
    (gates / "0_2").unlink()
    until(second.exists)
    ended.process.send_signal(signal.SIGINT)
    assert ended.end() == 130, ended.err.read_text()
    assert slurm.jobs() == {}
    said = ended.out.read_text()
    assert "job 0 (seed=0): val/miou" in said
    assert re.search("1 of 2 jobs have no result; run only those with: .*resume=", said)
    assert ended.err.read_text() == "error: interrupted by Ctrl-C\n"
    table = pd.read_csv(ended.sweep / "results.csv")
    assert list(table["state"]) == ["finished", "interrupted"]
    assert (ended.job(1) / "checkpoints/last.ckpt").is_file()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["partition=nope"], "SLURM refuses the jobs: invalid partition specified"),
        (["gpus_per_node=3"], "SLURM refuses the jobs: allocation failure: Requested"),
        (["timeout_min=61"], "timeout_min=61: more than the limit of the partition"),
        (["max_num_timeout=-1"], "max_num_timeout=-1: expected 0 or more"),
        (["mem_gb=much"], "hydra.launcher.mem_gb=much: expected float"),
        (["partitoin=small"], "hydra.launcher.partitoin: unknown key, did you mean"),
    ],
)
def test_what_slurm_would_refuse_is_refused_before_a_folder_is_made(
    words: list[str], complaint: str, slurm: Slurm, forked: Command, tmp_path: Path
) -> None:
    own = [f"hydra.launcher.{word}" for word in words]
    more = {**slurm.environment, "PYTHONPATH": str(ROOT)}
    done = forked(
        TRAIN, "-m", "seed=0,1", *SMALL, *ON_SLURM, *own, cwd=tmp_path, **more
    )
    assert done.returncode == 2, done.stderr
    assert complaint in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_plan_knows_the_room_of_the_partition(
    slurm: Slurm, forked: Command, tmp_path: Path
) -> None:
    """Four cores, 16 GiB and two GPUs hold two jobs of 6 GiB, or of a GPU each."""
    words = [*SMALL, *ON_SLURM, "check=true"]
    for more in ("mem_gb=6", "gpus_per_node=1"):
        done = forked(
            *(TRAIN, "-m", "seed=0,1,2,3", *words, f"hydra.launcher.{more}"),
            cwd=tmp_path,
            **slurm.environment,
        )
        assert done.returncode == 0, done.stderr
        assert re.search(r"at once +│ 2 +│", done.stdout)
