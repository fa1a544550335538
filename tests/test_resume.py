"""A run that was stopped or killed ends bit for bit like one that nobody disturbed."""

import os
import random
import signal
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from torture import SMALL, Whole, corrupt, fingerprint, fuzz, make_together, train

from imex_experiments.callbacks import FiniteCheck

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kills forks")


@pytest.fixture(autouse=True)
def _cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMEX_CACHE", str(cache))


def signal_at(step: int, number: int) -> None:
    """Send this process a signal within the update of an optimizer step."""
    check = FiniteCheck.on_before_optimizer_step

    def interrupted(self: Any, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        check(self, trainer, pl_module, optimizer)
        if trainer.global_step == step - 1:
            os.kill(os.getpid(), number)

    FiniteCheck.on_before_optimizer_step = interrupted  # type: ignore[method-assign]


EPOCHS = {
    "0 workers": ["data.num_workers=0"],
    "2 workers, accumulation": ["data.num_workers=2", "trainer.accumulate_grad_batches=2"],
    "0 workers, accumulation": ["data.num_workers=0", "trainer.accumulate_grad_batches=2"],
    "2 workers": ["data.num_workers=2"],
    "an epoch without validation": ["trainer.check_val_every_n_epoch=2"],
}
QUICK = ("0 workers", "2 workers, accumulation")


@pytest.mark.parametrize(
    "case",
    [c if c in QUICK else pytest.param(c, marks=pytest.mark.slow) for c in EPOCHS],
)
def test_resume_at_every_step_is_exact(case: str, tmp_path: Path) -> None:
    """Three batches and a rest of one an epoch: stops in it, at its end, and in the next."""
    words = [*SMALL, "trainer.max_epochs=2", "data.train=14"]
    words += ["callbacks.checkpoints.every_steps=null", *EPOCHS[case]]
    whole = tmp_path / "whole"
    assert train([*words, f"hydra.run.dir={whole}"]) == 0
    expected = fingerprint(whole)
    steps = 4 if "accumulation" in case else 8
    for step in range(1, steps + 1):
        run = tmp_path / str(step)
        sign = signal.SIGTERM if step % 2 else signal.SIGINT
        code = train([*words, f"hydra.run.dir={run}"], partial(signal_at, step, sign))
        assert code == (143 if step % 2 else 130)
        assert corrupt(run) == []
        assert train([f"resume={run}"]) == 0
        found = fingerprint(run)
        differing = [key for key in expected if found[key] != expected[key]]
        assert (step, differing) == (step, [])


def test_second_signal_ends_at_once(tmp_path: Path) -> None:
    """Two in one step, so no checkpoint is made, and none is there to go on from."""

    def twice() -> None:
        signal_at(2, signal.SIGINT)
        signal_at(2, signal.SIGINT)

    run = tmp_path / "run"
    words = [*SMALL, "callbacks.checkpoints.every_steps=null", f"hydra.run.dir={run}"]
    assert train(words, twice) == 130
    assert not list(run.rglob("*.ckpt"))
    assert train([f"resume={run}"]) == 4


def test_ten_kills_lose_nothing(tmp_path: Path) -> None:
    """kill -9, three times inside of a checkpoint write; `make test-faults` does a hundred."""
    whole = Whole(tmp_path / "whole")
    rng = random.Random(1)
    counts: Counter[str] = Counter()
    for number in range(10):
        counts += whole.kill(tmp_path / str(number), rng, inside=number < 3)
    assert counts["ended bit-identical"] == 10, counts
    assert counts["killed in a write"] >= 3
    assert not any("LOST" in name for name in counts), counts
    counts = fuzz(whole.run, rng, 100)
    assert sum(counts.values()) == 100
    assert not any("LOST" in name for name in counts), counts


def test_one_cache_of_many_makers_that_are_killed(tmp_path: Path) -> None:
    counts = make_together(tmp_path / "cache", random.Random(2))
    assert counts["readers of a cache with equal bytes"] >= 5
    assert not any("LOST" in name for name in counts), counts
