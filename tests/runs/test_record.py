"""status.json and small files: complete, and true to the exit code."""

import json
import os
import signal
from pathlib import Path

import pytest

from imex_experiments.runs.errors import (
    CheckpointError,
    ConfigError,
    NumericsError,
    StorageError,
    Terminated,
    exit_code,
    nearest,
    one_line,
)
from imex_experiments.runs.files import write_json
from imex_experiments.runs.record import recording


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


def test_nearest_names() -> None:
    assert nearest("alhpa", ["alpha", "h"]) == "did you mean 'alpha'?"
    assert nearest("zzz", ["h", "alpha"]) == "known: alpha, h"
