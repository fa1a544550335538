"""What training tells about stability, in the dashboard."""

import math
from pathlib import Path

import pytest
import torch
from conftest import QUICK, ROOT, Command
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from imex_experiments import load_run
from imex_experiments.analysis.perturbation import block_growths
from imex_experiments.callbacks import AutoAlpha, StabilityLog
from imex_experiments.integrators import ForwardEuler
from imex_experiments.networks import DynamicNet
from imex_experiments.terms import DoubleLayer, GramDiffusion


def scalars(run: Path) -> dict[str, list[float]]:
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return {
        tag: [event.value for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
        if tag.startswith("stability/")
    }


def test_growth_and_norm_of_every_block_are_logged(trained: Path) -> None:
    logged = scalars(trained)
    names = {f"stability/{w}/block {n}" for w in ("growth", "norm") for n in (1, 2, 3)}
    assert logged.keys() == names
    assert all(len(values) == 2 for values in logged.values())  # two epochs
    assert all(0 < value < 100 for values in logged.values() for value in values)


def test_where_no_change_arrives_the_growth_is_nan_and_no_error() -> None:
    network = DynamicNet(1, 2, [2], ForwardEuler(), DoubleLayer, GramDiffusion).eval()
    (block,) = block_growths(network, torch.zeros(2, 1, 8, 8))
    assert math.isnan(block.growth)
    assert math.isfinite(block.norm)


def test_auto_alpha_is_logged_kept_and_loaded(forked: Command, tmp_path: Path) -> None:
    words = ["model=imexnet", "model.alpha=auto", "model.h=learned", *QUICK]
    done = forked(str(ROOT / "train.py"), *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "outputs/qtips/imexnet").iterdir()
    logged = scalars(run)
    network = load_run(run, "last").network
    for n, L in enumerate(network.operators, 1):
        alphas = logged[f"stability/alpha/block {n}, step 1"]
        assert len(alphas) == 2
        assert float(L.alpha) == pytest.approx(alphas[-1], rel=1e-4)
        assert 5e3 < alphas[-1] < 5e4  # (64 / 2 pi)^4 = 10^4 for images of 64 pixels
    assert network.h != 1.0


@pytest.mark.parametrize("callback", [AutoAlpha, StabilityLog])
def test_no_images_are_refused(callback: type) -> None:
    with pytest.raises(ValueError, match="images must be >= 1, got 0"):
        callback(images=0)
