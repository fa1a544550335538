"""Shared by all tests: one thread per process, and commands run as a user runs them."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]

# pytest-xdist runs one process per core; OpenMP threads on top of that only spin.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)

QUICK = [
    "trainer.max_epochs=2",
    "data.train=48",
    "data.val=16",
    "data.test=16",
    "trainer.log_every_n_steps=1",
]
"""Overrides that make the main job a matter of seconds."""

Command = Callable[..., subprocess.CompletedProcess[str]]


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
def trained(python: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one finished quick run of the main job."""
    cwd = tmp_path_factory.mktemp("trained")
    done = python(
        str(ROOT / "train.py"), "model=imexnet", "data=qtips", *QUICK, cwd=cwd
    )
    assert done.returncode == 0, done.stderr
    (run,) = (cwd / "outputs/qtips/imexnet").iterdir()
    return run
