"""Shared by all tests: seeds, threads, tolerances, and commands run as a user runs them."""

import faulthandler
import gc
import multiprocessing
import os
import random
import runpy
import subprocess
import sys
import zlib
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from torch import Tensor

from imex_experiments.operators.kernels.cpp import library

ROOT = Path(__file__).parents[1]

# pytest-xdist runs one process per core; OpenMP threads on top of that only spin.
torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", "1")))

# GNU OpenMP's threads do not survive a fork: a child that asks for them waits for ever.
os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))

QUICK = [
    "trainer.max_epochs=2",
    "data.train=48",
    "data.val=16",
    "data.test=16",
    "trainer.log_every_n_steps=1",
]
"""Overrides that make the main job a matter of seconds."""

needs_kernels = pytest.mark.skipif(
    library() is None, reason="the kernels of fused.cpp need g++"
)

Command = Callable[..., subprocess.CompletedProcess[str]]


def rounding(dtype: torch.dtype, length: int, condition: float = 1.0) -> float:
    """Return eps x length x condition, a bound on the relative error of a computation.

    `length` counts the roundings that a result has behind it, one for each term of its
    sums. Each is eps / 2 at most. All of one sign they leave a factor of two, whatever
    the order of a sum, the width of vectors or the number of threads. `condition` is the
    factor by which a relative error of what is given grows.
    """
    return torch.finfo(dtype).eps * length * condition


def relative_error(found: Tensor, exact: Tensor) -> float:
    """Return |found - exact| / |exact| in the norm of all entries."""
    difference = found.detach().double() - exact.detach().double()
    return float(difference.norm() / exact.detach().double().norm())


def sensitivity(taps: Tensor, scale: float) -> float:
    """Return how far the rounding of taps changes t = 1 / (1 + scale |B^|^2).

    d t / t = 2 scale |B^| t |d B^| <= sqrt(scale) |d B^|, and |d B^| <= eps sum |b|.
    """
    return scale**0.5 * float(taps.detach().abs().sum((-2, -1)).amax())


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--seed",
        type=int,
        default=0,
        help="other random data for the tests and, but for 0, another order of them",
    )


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Shuffle files, and tests within a file, whose fixtures are made once."""
    if seed := config.getoption("--seed"):
        shuffled = random.Random(seed)
        files: dict[Path, float] = defaultdict(shuffled.random)
        items.sort(key=lambda item: (files[item.path], shuffled.random()))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Give each test random numbers of its own, whatever ran before it."""
    seed = zlib.crc32(item.nodeid.encode()) + item.config.getoption("--seed")
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data cache for this test process."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def environment(cache: Path) -> dict[str, str]:
    """What a child process sees: no colours, a wide terminal, the cache of the tests."""
    return {**os.environ, "IMEX_CACHE": str(cache), "COLUMNS": "160", "NO_COLOR": "1"}


@pytest.fixture(scope="session")
def python(environment: dict[str, str]) -> Command:
    """Run `python <words>` in a folder, as a child process with a time limit."""

    def run(
        *words: str, cwd: Path = ROOT, **more: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *words],
            cwd=cwd,
            env=environment | more,
            capture_output=True,
            text=True,
            timeout=600,
        )

    return run


@pytest.fixture(scope="session")
def forked(
    environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Command:
    """`python` without its start: a fork of this process that has all imports done.

    It runs the script as `__main__`, in a process, a folder and streams of its own;
    `before` is called there first, and may limit or sabotage it.
    """
    said = tmp_path_factory.mktemp("said")
    out, err = said / "stdout", said / "stderr"

    def run(
        script: str,
        *words: str,
        cwd: Path = ROOT,
        before: Callable[[], None] | None = None,
        **more: str,
    ) -> subprocess.CompletedProcess[str]:
        def command() -> None:
            gc.freeze()  # threads that objects of the parent would wait for are not here
            os.chdir(cwd)
            os.environ.update(environment | more)
            if before:
                before()
            sys.argv = [script, *words]
            with out.open("w") as sys.stdout, err.open("w") as sys.stderr:
                os.dup2(sys.stdout.fileno(), 1)  # for processes that it starts itself
                os.dup2(sys.stderr.fileno(), 2)
                faulthandler.dump_traceback_later(200)  # says where it hangs
                runpy.run_path(script, run_name="__main__")

        process = multiprocessing.get_context("fork").Process(target=command)
        process.start()
        process.join(240)
        assert process.exitcode is not None, f"it hangs:\n{err.read_text()}"
        return subprocess.CompletedProcess(
            sys.argv, process.exitcode, out.read_text(), err.read_text()
        )

    return run


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of pytest-xdist have in common."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def trained(python: Command, shared: Path) -> Path:
    """The folder of one finished quick run of the main job, where SLURM is installed.

    What it prints on stderr is in `stderr`, beside `outputs`. No test may change it.
    """
    cwd = shared / "trained"
    with FileLock(shared / "trained.lock"):
        if not cwd.exists():
            cwd.mkdir()
            (srun := cwd / "srun").write_text("#!/bin/sh\n")
            srun.chmod(0o755)
            path = f"{cwd}{os.pathsep}{os.environ['PATH']}"
            words = ["model=imexnet", "data=qtips", *QUICK]
            done = python(str(ROOT / "train.py"), *words, cwd=cwd, PATH=path)
            assert done.returncode == 0, done.stderr
            (cwd / "stderr").write_text(done.stderr)
    (run,) = (cwd / "outputs/qtips/imexnet").iterdir()
    return run
