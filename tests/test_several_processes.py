"""One training in several processes: with Lightning's own start, and with torchrun."""

import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, Command, rounding

from imex_experiments.runs.checkpoint_io import read_checkpoint

TRAIN = str(ROOT / "train.py")
SMALL = [
    *("experiment=implicit_function1d", "model.integrator.theta=0", "optimizer=sgd"),
    *("data.train=32", "trainer.max_epochs=2", "trainer.check_val_every_n_epoch=1"),
]
"""A network without batch norms, and a loss that is a mean over points."""
TWO = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]

pytestmark = pytest.mark.slow


def table(run: Path) -> list[dict[str, float]]:
    """metrics.csv without the times."""
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{k: float(v) for k, v in row.items() if k != "seconds"} for row in rows]


def status_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "status.json").read_text())


def test_two_processes_train_as_one_with_their_batches_together(
    python: Command, tmp_path: Path
) -> None:
    """Every sum is the same one, in another order."""
    for name, words in (
        ("one", ["data.batch_size=8"]),
        ("two", [*TWO, "data.batch_size=4"]),
    ):
        run = tmp_path / name
        done = python(TRAIN, *SMALL, *words, f"hydra.run.dir={run}")
        assert done.returncode == 0, done.stderr
        assert status_of(run)["state"] == "finished"
    assert done.stdout.count("MFLOP per image") == 1
    writers = {path.name.split(".")[-2] for path in run.glob("tensorboard/events*")}
    assert len(writers) == 1, "one process writes"
    # Sums over 8 points and 6 channels in 5 layers, 8 steps that do not amplify them.
    bound = rounding(torch.float32, 8 * 6 * 5, condition=8)
    one, two = table(tmp_path / "one"), table(tmp_path / "two")
    assert [row["step"] for row in two] == [4, 8]
    for key in ("train/loss", "val/loss", "val/rmse", "lr"):
        for mine, other in zip(one, two, strict=True):
            assert other[key] == pytest.approx(mine[key], rel=bound), key
    weights = [
        read_checkpoint(tmp_path / name / "checkpoints/last.ckpt")["state_dict"]
        for name in ("one", "two")
    ]
    for key, value in weights[0].items():
        close = torch.allclose(weights[1][key], value, rtol=bound, atol=bound)
        assert close, key


@contextmanager
def started(said: Path, environment: dict[str, str], *words: str) -> Iterator[Any]:
    """Start a training in a session of its own, which ends with the body."""
    with said.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, TRAIN, *words],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def until(true: Callable[[], Any], process: Any, seconds: float = 400.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.02)
    return found


def children_of(pid: int) -> list[int]:
    """The processes that Lightning started."""
    every = Path(f"/proc/{pid}/task").glob("*/children")
    return [
        int(child)
        for path in every
        for child in path.read_text().split()
        if "_ddp_process_" in Path(f"/proc/{child}/cmdline").read_text()
    ]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_killed_process_ends_all_with_one_line_and_the_run_goes_on(
    python: Command, environment: dict[str, str], tmp_path: Path
) -> None:
    run, said = tmp_path / "run", tmp_path / "said"
    words = [*SMALL, *TWO, "data.batch_size=4", f"hydra.run.dir={run}"]
    long = "trainer.max_epochs=3000"
    with started(said, environment, *words, long) as training:
        until(lambda: (run / "checkpoints/last.ckpt").is_file(), training)
        (child,) = children_of(training.pid)
        os.kill(child, signal.SIGKILL)
        assert training.wait(120) == 6, said.read_text()
    errors = re.findall(
        r"^(?:error: .*|Traceback.*|RuntimeError.*)$", said.read_text(), re.M
    )
    assert len(errors) == 1, said.read_text()
    assert "another process of the training is gone" in errors[0]
    status = status_of(run)
    assert (status["state"], status["exit_code"]) == ("failed", 6)
    assert f"error: {status['reason']}" == errors[0]
    epochs = len(table(run)) + 1
    again = [f"resume={run}", f"trainer.max_epochs={epochs}", "resume_changed=true"]
    done = python(TRAIN, *again)
    assert done.returncode == 0, done.stderr
    assert [row["epoch"] for row in table(run)] == [*range(1, epochs + 1)]


def test_a_signal_within_an_epoch_saves_and_the_resume_is_exact(
    python: Command, environment: dict[str, str], tmp_path: Path
) -> None:
    """With checkpoints at every step; the signal goes to the first process alone."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    words = [*SMALL, *TWO, "data.train=128", "data.batch_size=2"]
    words.append("callbacks.checkpoints.every_steps=1")
    done = python(TRAIN, *words, f"hydra.run.dir={whole}")
    assert done.returncode == 0, done.stderr
    said, last = tmp_path / "said", run / "checkpoints/last.ckpt"
    with started(said, environment, *words, f"hydra.run.dir={run}") as training:
        until(last.is_file, training)
        training.terminate()
        assert training.wait(120) == 143, said.read_text()
    assert said.read_text().count("error: ended by SIGTERM") == 1
    assert 0 < read_checkpoint(last)["global_step"] < 32, "within the first epoch"
    assert status_of(run)["state"] == "interrupted"
    done = python(TRAIN, f"resume={run}")
    assert done.returncode == 0, done.stderr
    assert table(run) == table(whole)
    mine, other = (
        read_checkpoint(folder / "checkpoints/last.ckpt")["state_dict"]
        for folder in (run, whole)
    )
    assert all(torch.equal(mine[key], other[key]) for key in other)


@pytest.mark.parametrize("fails", [False, True], ids=["", "the evaluation fails"])
def test_two_nodes_of_torchrun_train_and_the_first_process_evaluates(
    fails: bool, environment: dict[str, str], tmp_path: Path
) -> None:
    """Both nodes have the exit code of the evaluation, which is made on one alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=1"]
    words += ["trainer.num_nodes=2", *SMALL, "data.batch_size=4"]
    if fails:
        (run := tmp_path / "run").mkdir()
        (run / "figures").write_text("in the way")
        words.append(f"hydra.run.dir={run}")
    nodes = []
    for node in (0, 1):
        place = ["--nnodes=2", f"--node_rank={node}", "--nproc_per_node=1"]
        place += ["--master_addr=127.0.0.1", f"--master_port={port}"]
        nodes.append(
            subprocess.Popen(
                [sys.executable, "-m", "torch.distributed.run", *place, TRAIN, *words],
                cwd=tmp_path,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    said = [node.communicate(timeout=500)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [int(fails)] * 2, said
    if fails:
        assert status_of(run)["state"] == "failed"
        assert ["FileExistsError" in text for text in said] == [True, False]
        return
    (run,) = (tmp_path / "outputs/function1d/theta_vector").iterdir()
    assert status_of(run)["state"] == "finished"
    assert [row["step"] for row in table(run)] == [4, 8]
    assert "test/rmse" in json.loads((run / "metrics.json").read_text())
    assert ["kept checkpoint" in text for text in said] == [True, False]
