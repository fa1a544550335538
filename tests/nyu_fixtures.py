"""Fixtures of the tests of the NYU data; a plugin, so that one sample serves all of them."""

from pathlib import Path

import pytest
from nyu_files import write_small

from imex_experiments.data.nyu.sample import make_nyu_sample


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file of eight rendered frames for all the tests of a process."""
    path = tmp_path_factory.getbasetemp() / "nyu-sample.mat"
    if not path.exists():
        make_nyu_sample(path, frames=8, seed=0)
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write_small(tmp_path / "small.mat")
