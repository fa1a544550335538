"""status.json and small files: complete, and true to the exit code."""

import errno
import json
import math
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from multiprocessing import resource_sharer
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from imex_experiments.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    NumericsError,
    StorageError,
    Terminated,
    exit_code,
    nearest,
    one_line,
    root_cause,
)
from imex_experiments.files import write_json
from imex_experiments.runs.folder import alone_in
from imex_experiments.runs.load import read_metrics
from imex_experiments.runs.status import recording


def status(folder: Path) -> dict[str, object]:
    return json.loads((folder / "status.json").read_text())


def test_running_then_finished(tmp_path: Path) -> None:
    with recording(tmp_path, model="imexnet", seed=3):
        during = status(tmp_path)
    after = status(tmp_path)
    assert during["state"] == "running"
    assert after["state"] == "finished"
    assert after["exit_code"] == 0
    assert (after["model"], after["seed"]) == ("imexnet", 3)
    assert {
        "device",
        "threads",
        "versions",
        "git_commit",
        "started",
        "finished",
    } <= set(after)


@pytest.mark.parametrize(
    ("error", "code", "state"),
    [
        (ConfigError("x"), 2, "failed"),
        (CheckpointError("x"), 4, "failed"),
        (NumericsError("x"), 5, "failed"),
        (StorageError("x"), 6, "failed"),
        (RuntimeError("x"), 1, "failed"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (Terminated("SIGTERM"), 143, "interrupted"),
    ],
)
def test_errors_end_with_their_code(
    error: BaseException, code: int, state: str, tmp_path: Path
) -> None:
    with pytest.raises(type(error)), recording(tmp_path):
        raise error
    assert exit_code(error) == code
    assert status(tmp_path)["exit_code"] == code
    assert status(tmp_path)["state"] == state
    assert status(tmp_path)["reason"] == one_line(error)


@pytest.mark.parametrize(
    ("error", "complaint"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), "a/b: No space left"),
        (OSError(errno.EROFS, "Read-only file system"), "storage: Read-only"),
        (MemoryError(), "out of memory: try a smaller data.batch_size"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "out of memory: try"),
        (
            RuntimeError("DataLoader worker (pid(s) 12, 13) exited unexpectedly"),
            "DataLoader worker (pid(s) 12, 13) exited unexpectedly: it may have run out",
        ),
    ],
)
def test_what_ran_out_is_6_with_a_remedy(
    error: Exception, complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(StorageError), recording(tmp_path):
        raise error
    assert exit_code(error) == status(tmp_path)["exit_code"] == 6
    assert str(status(tmp_path)["reason"]).startswith(complaint)


class LastBatch(Dataset):
    """Two images; the worker closes its sockets after the first, and is killed."""

    def __init__(self, closed: Path) -> None:
        self.closed = closed

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Tensor:
        if index:
            time.sleep(0.2)  # the first is in the queue
            resource_sharer.stop()
            self.closed.touch()
            time.sleep(1)  # alive until it is missed, on a busy machine too
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.ones(1)


def next_after(file: Path, batches: Iterator[Tensor]) -> Tensor:
    while not file.exists():
        time.sleep(0.01)
    return next(batches)


@pytest.mark.skipif(sys.platform != "linux", reason="tensors come over sockets")
def test_a_worker_that_goes_while_it_hands_over_a_batch_is_6(tmp_path: Path) -> None:
    """Its socket is closed, and it is not yet dead: what a kill under load looks like."""
    batches: Any = iter(DataLoader(LastBatch(tmp_path / "closed"), num_workers=1))
    (worker,) = batches._workers
    torchs = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # it raises wherever we are
    try:
        with pytest.raises(StorageError) as caught, recording(tmp_path):
            next_after(tmp_path / "closed", batches)
    finally:
        batches._shutdown_workers()
        signal.signal(signal.SIGCHLD, torchs)
    assert re.search(rf"DataLoader worker \(pid\S* {worker.pid}\)", str(caught.value))
    assert exit_code(caught.value) == 6


class Failing(Dataset[Tensor]):
    def __init__(self, error: Exception) -> None:
        self.error = error

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Tensor:
        raise self.error


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (DataError("a.png: empty; copy it again"), 3, "a.png: empty; copy it again"),
        (
            OSError(errno.ENOSPC, "No space left"),
            6,
            "storage: No space left; free some",
        ),
    ],
)
def test_error_of_a_data_worker_has_its_code_and_its_own_line(
    error: Exception, code: int, line: str
) -> None:
    """torch raises it again, with a traceback as its message and without its errno."""
    with pytest.raises(type(error)) as caught:
        next(iter(DataLoader(Failing(error), num_workers=1)))
    assert "Original Traceback" in str(caught.value)
    assert exit_code(caught.value) == code
    assert one_line(root_cause(caught.value)).startswith(line)


def test_fault_in_a_data_worker_keeps_its_traceback() -> None:
    with pytest.raises(ValueError, match="Original Traceback") as caught:
        next(iter(DataLoader(Failing(ValueError("odd")), num_workers=1)))
    found = root_cause(caught.value)
    assert one_line(found) == "ValueError: odd"
    assert found.__cause__ is caught.value


def test_missing_file_is_a_fault_of_the_program() -> None:
    assert exit_code(FileNotFoundError(errno.ENOENT, "No such file")) == 1


def test_folder_of_a_run_is_written_by_one_process(tmp_path: Path) -> None:
    with (
        alone_in(tmp_path),
        pytest.raises(StorageError, match="another process is still writing this run"),
        alone_in(tmp_path, seconds=0.1),
    ):
        pass


def test_leftovers_of_a_killed_process_are_swept(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/.last.ckpt.x1.partial").write_text("half")
    (tmp_path / ".status.json.x2.partial").write_text("half")
    (tmp_path / "film.partial").write_text("somebody's own")
    with alone_in(tmp_path):
        names = {path.name for path in tmp_path.rglob("*.partial")}
    assert names == {"film.partial"}


def test_interrupt_behind_a_system_exit_is_an_interrupt(tmp_path: Path) -> None:
    """Lightning turns Ctrl-C into SystemExit(1)."""
    wrapped = SystemExit(1)
    wrapped.__context__ = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt), recording(tmp_path):
        raise wrapped
    assert status(tmp_path)["exit_code"] == 130


def test_sigterm_ends_the_body(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated), recording(tmp_path):
        os.kill(os.getpid(), signal.SIGTERM)
    assert status(tmp_path)["exit_code"] == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_json_has_no_word_for_nan(tmp_path: Path) -> None:
    """A strict reader takes the file, and ours reads null as NaN."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    metrics = {"val/iou": math.nan, "val/loss": math.inf, "steps": 3}
    write_json(tmp_path / "metrics.json", metrics)
    text = (tmp_path / "metrics.json").read_text()
    strict = json.loads(text, parse_constant=refuse)
    assert strict == {"val/iou": None, "val/loss": None, "steps": 3}
    found = read_metrics(tmp_path)
    assert found["steps"] == 3
    assert math.isnan(found["val/iou"])
    assert math.isnan(found["val/loss"])
    write_json(tmp_path / "x.json", {"nested": [{"deep": (1.5, -math.inf)}]})
    nested = json.loads((tmp_path / "x.json").read_text(), parse_constant=refuse)
    assert nested == {"nested": [{"deep": [1.5, None]}]}


def test_nearest_names() -> None:
    assert nearest("alhpa", ["alpha", "h"]) == "did you mean 'alpha'?"
    assert nearest("zzz", ["h", "alpha"]) == "known: alpha, h"


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_a_logger_that_cannot_report_is_one_line_about_storage(package: str) -> None:
    """Its errors are known by their package, which need not be installed."""
    kind = type("Failure", (Exception,), {"__module__": f"{package}.errors"})
    found = root_cause(kind("not logged in,\nuse login"))
    assert exit_code(found) == 6
    assert one_line(found) == f"logger.{package}: not logged in, use login"
