"""What ends a run from outside: the right exit code, one line, and a folder that is sound.

Each test runs train.py in a fork of this process; see scripts/maintenance/torture.py.
"""

import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, Command
from shim import build
from test_resume import signal_at
from torture import SMALL, TRAIN, corrupt, train

from imex_experiments.callbacks import FiniteCheck
from imex_experiments.errors import ConfigError
from imex_experiments.runs.folder import LOGS, claim
from imex_experiments.training.prepared import prepared

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")


@pytest.fixture(autouse=True)
def _cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMEX_CACHE", str(cache))


def status_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "status.json").read_text())


def file_limit(size: int) -> None:
    """No file larger than this: a write fails half way, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def seconds_of_children() -> float:
    """Computed by those that have ended, however busy the machine is."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def sound(run: Path) -> bool:
    """No partial file, and whatever has a final name verifies."""
    return not list(run.rglob("*.partial")) and not corrupt(run)


def test_disk_that_fills_up_keeps_the_last_checkpoint(
    forked: Command, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert train([*SMALL, f"hydra.run.dir={run}"], partial(signal_at, 5, 15)) == 143
    before = (run / "checkpoints/last.ckpt").read_bytes()
    done = forked(TRAIN, f"resume={run}", before=partial(file_limit, len(before) // 2))
    assert done.returncode == 6, done.stderr
    assert "last.ckpt: not saved (File too large); the checkpoint before" in done.stderr
    assert (status_of(run)["exit_code"], status_of(run)["state"]) == (6, "failed")
    assert (run / "checkpoints/last.ckpt").read_bytes() == before
    assert sound(run)
    assert train([f"resume={run}"]) == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 17 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={LOGS + 2**20}", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(words).returncode != 0:
        pytest.skip("mounting a file system needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def fill(disk: Path, but: int) -> None:
    with (disk / "filler").open("wb") as file:
        file.write(bytes(max(0, shutil.disk_usage(disk).free - but)))


def test_full_disk_is_6_and_status_says_so(small_disk: Path, forked: Command) -> None:
    run = small_disk / "run"
    words = [*SMALL, f"hydra.run.dir={run}"]
    assert train(words, partial(signal_at, 5, signal.SIGTERM)) == 143

    def fill_at_once() -> None:
        """Nothing is left when the end is written either."""
        check = FiniteCheck.on_before_optimizer_step

        def filling(self: Any, *args: Any) -> None:
            check(self, *args)
            with (small_disk / "rest").open("wb") as file:
                file.write(bytes(shutil.disk_usage(small_disk).free))

        FiniteCheck.on_before_optimizer_step = filling  # type: ignore[method-assign]

    done = forked(TRAIN, f"resume={run}", before=fill_at_once)
    assert done.returncode == 6, done.stderr
    assert "No space left on device" in done.stderr
    assert (status_of(run)["exit_code"], status_of(run)["state"]) == (6, "failed")
    assert sound(run)
    (small_disk / "rest").unlink()
    assert train([f"resume={run}"]) == 0


def test_nearly_full_disk_is_refused_before_a_folder_is_made(
    small_disk: Path, forked: Command
) -> None:
    fill(small_disk, but=100_000)
    done = forked(TRAIN, *SMALL, f"hydra.run.dir={small_disk / 'run'}")
    assert done.returncode == 6
    assert "a run needs 16 MiB, 0 MiB are free" in done.stderr
    assert [path.name for path in small_disk.iterdir()] == ["filler"]


def test_disk_too_full_for_curves_is_a_warning(forked: Command, tmp_path: Path) -> None:
    """Files of the size of a checkpoint still fit; the event file does not."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    words = [*SMALL, "trainer.max_epochs=3"]
    assert train([*words, f"hydra.run.dir={whole}"]) == 0
    size = (whole / "checkpoints/last.ckpt").stat().st_size
    events = max(p.stat().st_size for p in (whole / "tensorboard").iterdir())
    assert events > size + 2000, "this test needs more curves"
    words.append(f"hydra.run.dir={run}")
    done = forked(TRAIN, *words, before=partial(file_limit, size + 1000))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("no more curves in TensorBoard: File too large") == 1
    assert done.stderr == ""  # TensorBoard's thread says nothing of its own
    assert status_of(run)["state"] == "finished"
    assert len((run / "metrics.csv").read_text().splitlines()) == 4


@pytest.mark.parametrize("kind", ["a file in the way", "a file system of the kernel"])
def test_folder_that_cannot_be_written(
    kind: str, forked: Command, tmp_path: Path
) -> None:
    """Permissions do not stop root, so it is neither of them that the test takes away."""
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file/run" if "way" in kind else Path("/proc/run")
    begun = seconds_of_children()
    done = forked(TRAIN, *SMALL, f"hydra.run.dir={folder}", cwd=tmp_path)
    assert done.returncode == 6, done.stderr
    assert f"hydra.run.dir={folder}: " in done.stderr
    assert "cannot be written" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert seconds_of_children() - begun < 2


def test_run_folder_is_for_its_user_alone(forked: Command, tmp_path: Path) -> None:
    done = forked(TRAIN, *SMALL, "trainer.max_epochs=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "outputs/qtips/imexnet").iterdir()
    assert (run / "metrics.json").exists()
    done = forked(TRAIN, *SMALL, "hydra.run.dir=here", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [p.stat().st_mode & 0o777 for p in (run, tmp_path / "here")] == [0o700] * 2


def test_a_folder_has_one_run(forked: Command, trained: Path, tmp_path: Path) -> None:
    """Finished, or killed before its first checkpoint: no other one joins it."""
    killed = tmp_path / "killed"
    words = [*SMALL, f"hydra.run.dir={killed}"]
    assert train(words, partial(signal_at, 1, signal.SIGKILL)) == -signal.SIGKILL
    for run, way in ((trained, "go on with it: python"), (killed, "delete it")):
        before = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in run.rglob("*")}
        done = forked(TRAIN, *SMALL, f"hydra.run.dir='{run}'")
        assert done.returncode == 2, done.stderr
        (line,) = done.stderr.splitlines()
        assert f"hydra.run.dir={run}: there is a run in it already; {way}" in line
        now = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in run.rglob("*")}
        assert now == before


def test_of_two_runs_that_ask_for_one_folder_at_once_one_is_refused(
    tmp_path: Path,
) -> None:
    context = multiprocessing.get_context("fork")
    start, taken = context.Barrier(8), context.Value("i", 0)

    def ask() -> None:
        start.wait()
        try:
            claim(tmp_path)
        except ConfigError:
            return
        with taken:
            taken.value += 1

    for process in (asking := [context.Process(target=ask) for _ in range(8)]):
        process.start()
    for process in asking:
        process.join()
        assert process.exitcode == 0
    assert taken.value == 1


@pytest.mark.parametrize(
    "what", ["renamed", pytest.param("deleted", marks=pytest.mark.slow)]
)
def test_a_folder_that_goes_ends_the_run(
    what: str, forked: Command, tmp_path: Path
) -> None:
    """It is not made anew; under its new name it goes on."""
    run, moved = tmp_path / "run", tmp_path / "moved"

    def take_it() -> None:
        check = FiniteCheck.on_before_optimizer_step

        def taking(self: Any, trainer: Any, *args: Any) -> None:
            check(self, trainer, *args)
            if trainer.global_step == 5:
                run.rename(moved)
                if what == "deleted":
                    shutil.rmtree(moved)

        FiniteCheck.on_before_optimizer_step = taking  # type: ignore[method-assign]

    done = forked(TRAIN, *SMALL, f"hydra.run.dir={run}", before=take_it)
    assert done.returncode == 6, done.stderr
    assert f"{run}: no longer there, deleted or renamed" in done.stderr
    assert "Traceback" not in done.stderr
    assert not run.exists()
    if what == "renamed":
        assert sound(moved)
        assert train([f"resume={moved}"]) == 0
        assert status_of(moved)["state"] == "finished"


def test_what_a_run_is_outlives_a_loss_of_power(
    forked: Command, tmp_path: Path
) -> None:
    """Its .hydra, without which no checkpoint can be resumed, is synced before it trains."""
    run, synced = tmp_path / "run", tmp_path / "synced"

    def observe() -> None:
        fsync = os.fsync

        def told(handle: int) -> None:
            with synced.open("a") as file:
                file.write(os.readlink(f"/proc/self/fd/{handle}") + "\n")
            fsync(handle)

        os.fsync = told

    done = forked(TRAIN, *SMALL, f"hydra.run.dir={run}", before=observe)
    assert done.returncode == 0, done.stderr
    paths = [Path(line) for line in synced.read_text().splitlines()]
    first = next(n for n, path in enumerate(paths) if path.parent.name == "checkpoints")
    for name in ("config.yaml", "hydra.yaml", "overrides.yaml"):
        before = {p.name.split(".")[1] for p in paths[:first] if ".hydra" in p.parts}
        assert name.split(".")[0] in before
    assert {run, run / ".hydra"} <= set(paths[:first])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="the shim needs a C compiler")
@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("run", ["--how", "kill", "half", "--sample", "2"]),
        ("sweep", ["--sweep", "--sample", "4"]),
    ],
)
def test_a_sample_of_all_file_operations(
    what: str, words: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    """Disturbed and resumed; `make test-faults` does so at all of them."""
    at = ["--at", "every-operation", *words]
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/maintenance/torture.py"), *at],
        env=environment | {"LD_PRELOAD": str(build(tmp_path))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "LOST" not in done.stdout
    assert f"file operations in a {what}" in done.stdout


@pytest.mark.slow
def test_two_runs_that_start_together_have_two_folders(
    environment: dict[str, str], tmp_path: Path
) -> None:
    command = [sys.executable, TRAIN, *SMALL]
    runs = [
        subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL
        )
        for _ in range(2)
    ]
    assert [run.wait() for run in runs] == [0, 0]
    assert len(list((tmp_path / "outputs/qtips/imexnet").iterdir())) == 2


def test_out_of_memory_is_6_with_a_hint(forked: Command, tmp_path: Path) -> None:
    def little_memory() -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + 300 * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))

    run = tmp_path / "run"
    words = [*SMALL, "data.train=4096", "data.batch_size=4096", "model.widths=[64]"]
    done = forked(TRAIN, *words, f"hydra.run.dir={run}", before=little_memory)
    assert done.returncode == 6, done.stderr
    assert "out of memory: try a smaller data.batch_size" in done.stderr
    assert (status_of(run)["exit_code"], status_of(run)["state"]) == (6, "failed")


def test_killed_data_worker_is_6_and_no_hang(forked: Command, tmp_path: Path) -> None:
    def kill_a_worker() -> None:
        check = FiniteCheck.on_before_optimizer_step

        def killing(self: Any, trainer: Any, *args: Any) -> None:
            check(self, trainer, *args)
            if trainer.global_step == 2:
                multiprocessing.active_children()[0].kill()

        FiniteCheck.on_before_optimizer_step = killing  # type: ignore[method-assign]

    run = tmp_path / "run"
    words = [*SMALL, "data.train=64", "data.num_workers=2", f"hydra.run.dir={run}"]
    done = forked(TRAIN, *words, before=kill_a_worker)
    assert done.returncode == 6, done.stderr
    assert "DataLoader worker (pid" in done.stderr
    assert "data.num_workers" in done.stderr
    assert status_of(run)["exit_code"] == 6
    assert sound(run)


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_nan_ends_before_the_update(
    where: str, forked: Command, tmp_path: Path
) -> None:
    """At step 6: the checkpoint of step 5 stays the last one, and is finite."""

    def poison() -> None:
        name = f"on_before_{'backward' if where == 'loss' else 'optimizer_step'}"
        check: Callable[..., None] = getattr(FiniteCheck, name)

        def poisoned(self: Any, trainer: Any, pl_module: Any, loss: Any) -> None:
            if trainer.global_step == 5 and where == "loss":
                loss = loss * np.nan
            elif trainer.global_step == 5:
                next(pl_module.parameters()).grad[...] = np.inf
            check(self, trainer, pl_module, loss)

        setattr(FiniteCheck, name, poisoned)

    run = tmp_path / "run"
    done = forked(TRAIN, *SMALL, f"hydra.run.dir={run}", before=poison)
    assert done.returncode == 5, done.stderr
    assert f"the {where}" in done.stderr
    assert "at step 5" in done.stderr
    assert status_of(run)["exit_code"] == 5
    last = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == 5
    assert all(torch.isfinite(w).all() for w in last["state_dict"].values())


def test_setting_that_would_widen_what_may_be_built_is_ignored(
    forked: Command, tmp_path: Path
) -> None:
    """Hydra builds its own callbacks, and would obey the variable."""
    kept = tmp_path / "kept"
    kept.write_text("")
    words = [f"+hydra.callbacks.x={{_target_:os.remove,path:'{kept}'}}", "check=true"]
    forked(TRAIN, *words, HYDRA_INSTANTIATE_ALLOWLIST_OVERRIDE="os.remove:posix.remove")
    assert kept.exists()


@pytest.mark.parametrize(
    "word",
    [
        *("~hydra.callbacks.hooks", "~hydra.callbacks", "hydra.callbacks=null"),
        *("hydra.callbacks.hooks=null", "++hydra.callbacks.hooks._target_=builtins.id"),
    ],
)
def test_what_checks_every_run_cannot_be_taken_away(
    word: str, forked: Command, tmp_path: Path
) -> None:
    done = forked(TRAIN, word, "model.h=-1", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"error: {word}: hydra.callbacks.hooks checks and")
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_without_what_prepares_a_run_there_is_none() -> None:
    """As from a main configuration of the user's own (--config-name)."""
    with pytest.raises(ConfigError, match=r"hydra\.callbacks\.hooks: missing"):
        prepared()
