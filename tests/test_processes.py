"""The launcher `processes`: forks that are as good as processes, and sweeps that use them."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Command
from omegaconf import OmegaConf
from test_sweeps import SABOTAGED, TINY, TRAIN, statuses, sweep_of, wait_for

from imex_experiments.process import forks
from imex_experiments.process.forks import apart
from imex_experiments.process.tied import Child, Children
from imex_experiments.runs.folder import alone_in
from imex_experiments.sweeps.processes import environments
from imex_experiments.sweeps.resume import resumed_sweep

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks of Linux")

SCRIPT = """
import json, os, sys, torch
print(json.dumps({
    "name": __name__, "arguments": sys.argv[1:],
    "threads": torch.get_num_threads(), "variable": os.environ["VARIABLE"],
    "session": os.getsid(0) == os.getpid(), "stdin": os.fstat(0).st_mode,
}), flush=True)
os.write(2, b"on stderr")
sys.exit(7)
"""
"""It says what it sees of its surroundings.

It computes nothing: after another test this process may have a pool of OpenMP, which
launchers do not have, and no fork of it can use two threads.
"""


def test_a_fork_sees_what_a_process_sees(tmp_path: Path) -> None:
    """Its own session, stdin, streams, arguments, environment, threads and exit code."""
    (script := tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(script), "a=1", "b"]
    variables = {"OMP_NUM_THREADS": "2", "VARIABLE": "of the child"}
    seen: list[dict[str, Any]] = []
    opened = len(os.listdir("/proc/self/fd"))
    with Children() as children:
        for way in (children.start, children.fork):
            path = tmp_path / way.__name__
            with path.open("a") as output:
                child = way(command, output, variables)
            assert child.wait() == child.poll() == 7
            line, rest = path.read_text().split("\n")
            assert rest == "on stderr"
            seen.append(json.loads(line))
    assert seen[0] == seen[1]
    assert seen[1]["threads"] == 2
    assert seen[1]["session"]
    assert "VARIABLE" not in os.environ
    assert len(os.listdir("/proc/self/fd")) == opened


def test_forks_end_in_order_with_the_body(tmp_path: Path) -> None:
    """Each one, by the SIGTERM that it sends to itself; none holds the pipe of another."""
    (script := tmp_path / "script.py").write_text(
        "import signal, sys, time\n"
        "from imex_experiments.process.tied import end_with_parent\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        "end_with_parent()\n"
        "print('ready', flush=True)\n"
        "time.sleep(20)\n"
    )
    with Children() as children:
        started: list[Child] = []
        for number in range(3):
            with (tmp_path / str(number)).open("a") as output:
                started += [children.fork([sys.executable, str(script)], output, {})]
            wait_for(tmp_path, str(number), contains="ready")
        assert [child.poll() for child in started] == [None] * 3
    assert [child.poll() for child in started] == [143] * 3


def test_a_fork_does_not_hold_the_lock_of_its_parent(tmp_path: Path) -> None:
    """Another launcher of the sweep would wait for the jobs of one that was killed."""
    (script := tmp_path / "script.py").write_text("input()")
    with Children() as children, (tmp_path / "output").open("a") as output:
        with alone_in(tmp_path):
            child = children.fork([sys.executable, str(script)], output, {})
        with alone_in(tmp_path, seconds=0):
            assert child.poll() is None


def kill(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("forking", [True, False], ids=["fork", "new interpreter"])
def test_apart_gives_back_the_result_or_the_error(
    forking: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forks, "can_fork", lambda: forking)
    assert apart(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError) as caught:
        apart(divmod, 7, 0)
    assert "forks.py" in caught.value.__notes__[0], "where it was raised"
    if forking:
        with pytest.raises(ChildProcessError, match="-9; if it was killed"):
            apart(kill, signal.SIGKILL)


def test_jobs_share_threads_and_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert environments(1) == [{}]
    assert environments(3) == [{"OMP_NUM_THREADS": "2"}] * 3
    assert environments(16) == [{"OMP_NUM_THREADS": "1"}] * 16
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert environments(3) == [{}] * 3
    for visible, names in ((None, "010"), ("5,3", "535")):
        if visible:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        assert environments(3) == [{"CUDA_VISIBLE_DEVICES": name} for name in names]


def test_a_sweep_of_another_launcher_goes_on_with_this_one(tmp_path: Path) -> None:
    """Its settings are not those of this one; ray_cpu is no choice any more."""
    ray = ["hydra/launcher=ray_cpu", "hydra.launcher.ray.init.num_cpus=2"]
    words = {"hydra": ["hydra.mode=MULTIRUN", *ray], "task": ["seed=0,1"]}
    OmegaConf.save({"hydra": {"overrides": words}}, tmp_path / "sweep.yaml")
    now = ["hydra/launcher=processes", "hydra.launcher.n_jobs=2"]
    found = resumed_sweep([f"sweep.resume={tmp_path}", *now])
    assert [word for word in found if "launcher" in word] == now
    assert "seed=0,1" in found


@pytest.mark.slow
def test_jobs_run_side_by_side_and_a_killed_one_ends_no_other(
    forked: Command, tmp_path: Path
) -> None:
    """Their scores are those of new interpreters."""
    words = ["-m", "seed=0,104,1,2", *TINY, "hydra.launcher.n_jobs=2"]
    scores = []
    for fork in ("false", "true"):
        (cwd := tmp_path / fork).mkdir()
        done = forked(SABOTAGED, *words, f"hydra.launcher.fork={fork}", cwd=cwd)
        assert done.returncode == 1, done.stderr
        assert (
            "job 1 (seed=104) failed with exit code 6: killed by SIGKILL" in done.stdout
        )
        assert "1 of 4 jobs have no result" in done.stderr
        found = statuses(sweep := sweep_of(cwd))
        states = [status["state"] for status in found]
        assert states == ["finished", "failed", "finished", "finished"]
        jobs = [sweep / f"{n}_seed={seed}" for n, seed in ((0, 0), (2, 1), (3, 2))]
        metrics = [json.loads((job / "metrics.json").read_text()) for job in jobs]
        scores.append([m["val/miou"] for m in metrics])
        running = [0]
        for line in re.findall(r"^\S+ job \d .*", done.stdout, re.M):
            running.append(running[-1] + (1 if line.endswith(" starts") else -1))
        assert max(running) == 2
        assert len(running) == 9
    assert scores[0] == scores[1]


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="a fork that uses CUDA")
def test_forks_take_turns_on_the_gpus(python: Command, tmp_path: Path) -> None:
    count = torch.cuda.device_count()
    seeds = ",".join(map(str, range(2 * count)))
    at_once = f"hydra.launcher.n_jobs={2 * count}"
    done = python(
        TRAIN, "-m", f"seed={seeds}", at_once, "trainer=gpu", *TINY, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    found = statuses(sweep_of(tmp_path))
    assert all(status["device"] == torch.cuda.get_device_name() for status in found)
    names = sorted(status["visible_devices"] for status in found)
    assert names == sorted(map(str, [*range(count), *range(count)]))


@contextmanager
def launcher(
    words: Sequence[str], cwd: Path, environment: dict[str, str]
) -> Iterator[subprocess.Popen[str]]:
    """A sweep of two jobs at a time, when both have a checkpoint; it would take an hour."""
    command = [sys.executable, TRAIN, "-m", "seed=0,1,2", *TINY, *words]
    more = ["hydra.launcher.n_jobs=2", "trainer.max_epochs=30000"]
    process = subprocess.Popen(
        [*command, *more],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        for number in (0, 1):
            wait_for_checkpoint(cwd, number)
        yield process
    finally:
        process.kill()
        process.communicate()


def begun(sweep: Path) -> list[dict[str, Any]]:
    """The status of each job that has one."""
    return [json.loads(path.read_text()) for path in sweep.glob("*/status.json")]


def wait_for_checkpoint(cwd: Path, number: int) -> None:
    pattern = f"outputs/sweeps/*/{number}_*/checkpoints/last.ckpt"
    end = time.monotonic() + 120
    while not list(cwd.glob(pattern)):
        assert time.monotonic() < end, f"no {pattern}"
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "line"),
    [
        (signal.SIGINT, 130, "error: interrupted by Ctrl-C"),
        (signal.SIGTERM, 143, "error: ended by SIGTERM"),
        (signal.SIGKILL, -9, None),
    ],
)
def test_jobs_end_in_order_with_their_launcher(
    number: int,
    code: int,
    line: str | None,
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    """A Ctrl-C reaches the whole group of the launcher, as at a terminal."""
    with launcher([], tmp_path, environment) as process:
        os.killpg(process.pid, number)
        _, said = process.communicate(timeout=60)
        assert process.returncode == code, said
        if line:
            assert said.splitlines() == [line]
        sweep = sweep_of(tmp_path)
        for job in (0, 1):
            wait_for(sweep, f"{job}_*/status.json", contains='"interrupted"')
        assert not list(sweep.glob("2_*/console.log")), "no further job was started"
        ends = begun(sweep)
        assert len(ends) == (3 if line else 2), "the report has a row for that job too"
        assert all(end["exit_code"] == 143 for end in ends)


@pytest.mark.slow
def test_a_local_sweep_opens_no_sockets(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """Neither beyond loopback nor on it. What Ray would open is found by the same look."""
    with socket.create_server(("0.0.0.0", 0)) as here:
        port = here.getsockname()[1]
        assert [s for s in sockets_of([os.getpid()]) if s.endswith(f":{port:04X}")]
    unset = {key: v for key, v in environment.items() if key != "OMP_NUM_THREADS"}
    with launcher([], tmp_path, unset) as process:
        family = descendants(process.pid)
        assert len(family) >= 3, "the launcher and two jobs"
        assert sockets_of(family) == []
        for status in begun(sweep_of(tmp_path)):
            assert status["threads"] == max(1, os.cpu_count() // 2)  # type: ignore


def sockets_of(pids: Sequence[int]) -> list[str]:
    """The local addresses of all TCP and UDP sockets of processes, as Linux has them."""
    held = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                held.add(os.readlink(link))
            except FileNotFoundError:  # closed meanwhile
                continue
    rows: list[Any] = []
    for table in ("tcp", "tcp6", "udp", "udp6"):
        rows += map(str.split, Path(f"/proc/net/{table}").read_text().splitlines()[1:])
    return [row[1] for row in rows if f"socket:[{row[9]}]" in held]


def descendants(pid: int) -> list[int]:
    """A process, its children, their children and so on."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for task in tasks for child in task.read_text().split()]
    return [pid, *(below for child in children for below in descendants(child))]
