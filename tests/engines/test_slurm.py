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
from conftest import ROOT, Command, fork_jobs
from torture import SMALL

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
        return self.process.wait(240)

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


def until(found: Callable[[], object], seconds: float = 180.0) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end
        time.sleep(0.1)


def close(gates: Path, *names: str) -> list[Path]:
    """Close gates; return the files that say that a training waits there."""
    for name in names:
        (gates / name).touch()
    return [gates / f"{name}.reached" for name in names]


def test_every_fate_of_a_job_is_answered_and_resume_ends_as_if_undisturbed(
    slurm: Slurm, launch: Launch, gates: Path, forked: Command, tmp_path: Path
) -> None:
    """One job ends well. The others are cancelled while they train and while they wait, put
    back into the queue, and killed: the training itself, and the process of the job.
    """
    words = ["-m", "seed=0,1,2,3,4,5", *GATED]
    waiting = close(gates, "1_2", "2_6", "3_2", "4_2")
    sweep = launch(*words, *ON_SLURM)
    until(lambda: "SLURM array" in sweep.out.read_text())
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

    for gate in gates.iterdir():
        gate.unlink()
    finished = [sweep.status(seed) for seed in (0, 2)]
    again = launch(f"sweep.resume={place}", "allow=[gates]")
    assert again.end() == 0, again.err.read_text()
    assert [again.status(seed) for seed in (0, 2)] == finished
    assert "4 jobs" in again.out.read_text()
    (tmp_path / "whole").mkdir()
    done = forked(
        TRAIN, *words, cwd=tmp_path / "whole", before=fork_jobs, GATES=str(gates)
    )
    assert done.returncode == 0, done.stderr
    (whole,) = tmp_path.glob("whole/outputs/sweeps/*")
    for name in ("results.csv", "1_seed=1/metrics.csv"):
        assert (again.sweep / name).read_bytes() == (whole / name).read_bytes()
