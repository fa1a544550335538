"""Ends outside of training proper: signals, streams and disks, each in a real process.

Forks have all imports done; where the imports are what is tested, it is a new interpreter.
"""

import ctypes
import fcntl
import json
import multiprocessing
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, Command
from test_resume import signal_at
from torture import SMALL, TRAIN, train

from imex_experiments.callbacks import FiniteCheck
from imex_experiments.commands import entry
from imex_experiments.data.folder.published import write_image_folder
from imex_experiments.data.qtips import QtipsRecipe, make_qtips

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals of Linux")


@pytest.fixture(autouse=True)
def _cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMEX_CACHE", str(cache))


def status_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "status.json").read_text())


LINES = {
    signal.SIGINT: (130, "error: interrupted by Ctrl-C\n"),
    signal.SIGTERM: (143, "error: ended by SIGTERM\n"),
    signal.SIGHUP: (143, "error: ended by SIGHUP\n"),
    signal.SIGUSR2: (143, "error: ended by SIGUSR2\n"),
}

SLOW_TORCH = "import time\nprint('importing', flush=True)\ntime.sleep(60)\n"
"""A torch whose import takes its time."""


@pytest.mark.parametrize("command", ["train.py", "scripts/compare.py"])
def test_signal_while_importing_is_one_line(
    command: str, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "torch.py").write_text(SLOW_TORCH)
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    for number, expected in LINES.items():
        process = subprocess.Popen(
            [sys.executable, str(ROOT / command)],
            env=environment | {"PYTHONPATH": paths},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
        assert (process.returncode, said) == expected


def test_every_command_listens_before_its_imports() -> None:
    commands = [ROOT / "train.py", *(ROOT / "scripts").rglob("*.py")]
    sources = {path: path.read_text() for path in commands}
    doors = [p for p, source in sources.items() if f'    run("{p.stem}")' in source]
    assert len(doors) > 12
    for path in doors:
        (line,) = [x for x in sources[path].splitlines() if x[:5] in ("impor", "from ")]
        assert line == "from imex_experiments.commands.entry import run"
    mains = [source for source in sources.values() if "  run_command(main)" in source]
    assert len(mains) + len(doors) > 20
    for source in mains:
        imports = [
            line for line in source.splitlines() if line[:5] in ("impor", "from ")
        ]
        assert imports[0].endswith("process.interrupts import end_at_once")
        assert source.index("    end_at_once()") < source.index(imports[1])


def test_sighup_saves_like_sigterm(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = [*SMALL, "callbacks.checkpoints.every_steps=null", f"hydra.run.dir={run}"]
    assert train(words, partial(signal_at, 3, signal.SIGHUP)) == 143
    status = status_of(run)
    assert (status["state"], status["exit_code"]) == ("interrupted", 143)
    assert status["reason"] == "ended by SIGHUP"
    assert (run / "checkpoints/last.ckpt").is_file()
    assert train([f"resume={run}"]) == 0


def test_nohup_trains_on(tmp_path: Path) -> None:
    """nohup has the signal ignored, and it stays so."""

    def nohup() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal_at(3, signal.SIGHUP)

    run = tmp_path / "run"
    assert train([*SMALL, f"hydra.run.dir={run}"], nohup) == 0
    assert status_of(run)["state"] == "finished"


def at_step(step: int, act: Callable[[], None]) -> None:
    check = FiniteCheck.on_before_optimizer_step

    def acting(self: Any, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        check(self, trainer, pl_module, optimizer)
        if trainer.global_step == step - 1:
            act()

    FiniteCheck.on_before_optimizer_step = acting  # type: ignore[method-assign]


def test_terminal_that_is_closed_leaves_a_checkpoint(tmp_path: Path) -> None:
    """SIGHUP comes from the system, and every write to the terminal fails from then on."""
    ours, theirs = pty.openpty()
    run = tmp_path / "run"

    def command() -> None:
        import runpy

        os.setsid()
        os.close(ours)
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)  # a closed terminal tells its session
        with open(theirs, "w") as sys.stdout:
            sys.stderr = sys.stdout
            os.dup2(sys.stdout.fileno(), 1)
            at_step(3, lambda: (tmp_path / "reached").touch() or time.sleep(1))
            words = [word for word in SMALL if "progress" not in word]
            words += ["callbacks.checkpoints.every_steps=null"]
            sys.argv = [TRAIN, *words, f"hydra.run.dir={run}"]
            runpy.run_path(TRAIN, run_name="__main__")

    process = multiprocessing.get_context("fork").Process(target=command)
    process.start()
    os.close(theirs)
    os.set_blocking(ours, False)
    while process.is_alive() and not (tmp_path / "reached").exists():
        try:
            os.read(ours, 65536)
        except BlockingIOError:
            time.sleep(0.01)
    os.close(ours)
    process.join(60)
    assert process.exitcode == 143
    assert status_of(run)["reason"] == "ended by SIGHUP"
    assert (run / "checkpoints/last.ckpt").is_file()


def test_training_outlives_the_reader_of_its_output(
    forked: Command, tmp_path: Path
) -> None:
    """`train.py | head -0`: 0, nothing on stderr, and train.log has it all."""

    run = tmp_path / "run"
    script = tmp_path / "piped.py"
    script.write_text(PIPED)
    words = [word for word in SMALL if "progress" not in word]
    done = forked(str(script), *words, f"hydra.run.dir={run}")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert status_of(run)["state"] == "finished"
    assert "epoch 2/2" in (run / "train.log").read_text()


def test_help_of_imex_outlives_its_reader(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """`imex --help | true`: no traceback of a broken pipe."""
    read, write = os.pipe()
    os.close(read)
    monkeypatch.setattr(sys, "argv", ["imex", "--help"])
    with open(write, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        entry.main()
    assert capfd.readouterr().err == ""


PIPED = f"""
import os, runpy, sys
read, write = os.pipe()
os.close(read)
sys.argv[0] = {TRAIN!r}
with open(write, "w") as sys.stdout:
    runpy.run_path({TRAIN!r}, run_name="__main__")
"""
"""train.py, into a pipe that nobody reads."""


def test_ascii_terminal_is_no_reason_to_end(forked: Command, tmp_path: Path) -> None:
    run = tmp_path / "läuft"
    script = tmp_path / "ascii.py"
    script.write_text(ASCII)
    words = [word for word in SMALL if "progress" not in word]
    done = forked(str(script), *words, f"hydra.run.dir='{run}'")
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert "l\\xe4uft" in done.stdout
    assert status_of(run)["state"] == "finished"


ASCII = f"""
import runpy, sys
sys.argv[0] = {TRAIN!r}
sys.stdout.reconfigure(encoding="ascii")
runpy.run_path({TRAIN!r}, run_name="__main__")
"""
"""train.py, as PYTHONIOENCODING=ascii has it."""


LONG = "x" * 256


@pytest.mark.parametrize(
    ("word", "complaint"),
    [
        ("seed=-1", "seed=-1: expected an integer from 0 to 4294967295"),
        ("trainer.precision=bf16-true", "expected 32-true, 64-true, bf16-mixed"),
        (f"hydra.run.dir={LONG}", "a name in it is too long for the file system"),
        (f"data.root={LONG}", "a name in it is too long for the file system"),
        (f"resume={LONG}", "a name in it is too long for the file system"),
        (f"-m +callbacks.hparams.hparams.x={LONG},y", "=${hydra.job.num}'"),
    ],
)
def test_odd_value_is_refused_before_a_folder_is_made(
    word: str, complaint: str, forked: Command, tmp_path: Path
) -> None:
    done = forked(TRAIN, *word.split(), *SMALL, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert complaint in line
    assert list(tmp_path.iterdir()) == []


def test_data_of_one_class_are_named_as_the_cause(
    forked: Command, tmp_path: Path
) -> None:
    """The loss would be 0 / 0 from the first step on, whatever the learning rate."""
    made = make_qtips(16, QtipsRecipe(24, lengths=(8, 12), widths=(2, 4)), seed=0)
    write_image_folder(tmp_path, made["images"], torch.zeros_like(made["labels"]))
    done = forked(TRAIN, *SMALL, f"data.root={tmp_path}", f"hydra.run.dir={tmp_path}/r")
    assert done.returncode == 3, done.stderr
    assert "all training pixels are of one class, 'background'" in done.stderr
    assert not (tmp_path / "r").exists()


def mounted(folder: Path, options: str) -> None:
    """A small file system at a folder, for this process alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(0x00020000) == 0  # CLONE_NEWNS
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    subprocess.run(words, check=True)


needs_root = pytest.mark.skipif(os.getuid() != 0, reason="mounting needs root")


@needs_root
def test_shared_memory_too_small_for_workers_is_6(
    forked: Command, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = [*SMALL, "data.num_workers=2", f"hydra.run.dir={run}"]
    before = partial(mounted, Path("/dev/shm"), "size=64k")
    done = forked(TRAIN, *words, before=before)
    assert done.returncode == 6, done.stderr
    (line,) = done.stderr.splitlines()
    assert "/dev/shm, where data workers pass their batches, is full" in line
    assert status_of(run)["exit_code"] == 6


@needs_root
def test_disk_that_is_full_when_the_log_opens_is_6(
    forked: Command, tmp_path: Path
) -> None:
    """It has no room for one more file."""
    (full := tmp_path / "full").mkdir()
    log = f"hydra.job_logging.handlers.file.filename={full}/train.log"
    before = partial(mounted, full, "size=4k,nr_inodes=1")
    words = [*SMALL, f"hydra.run.dir={tmp_path}/run", log]
    done = forked(TRAIN, *words, before=before)
    assert done.returncode == 6, done.stderr
    (line,) = done.stderr.splitlines()
    assert f"{full}/train.log: No space left on device; free some space" in line
