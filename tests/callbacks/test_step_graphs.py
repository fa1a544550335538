"""CUDA graphs of the training pass; without a device only what refuses them."""

import copy
from pathlib import Path

import pytest
import torch
from conftest import ROOT, Command

from imex_experiments.callbacks.step_graphs import record
from imex_experiments.integrators import Imex
from imex_experiments.networks import DynamicNet
from imex_experiments.terms import DoubleLayer, GramDiffusion

on_device = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_graphs_are_refused_without_a_device(forked: Command, tmp_path: Path) -> None:
    done = forked(str(ROOT / "train.py"), "speed=graphs", cwd=tmp_path)
    assert done.returncode == 2
    assert "trainer.graphs=true: CUDA graphs need a CUDA device" in done.stderr
    assert not list(tmp_path.iterdir())


@on_device
def test_replayed_steps_are_the_steps() -> None:
    """Losses, gradients and running averages, for other weights than the recorded ones."""
    torch.manual_seed(0)
    network = DynamicNet(1, 3, [4, 8], Imex(), DoubleLayer, GramDiffusion).cuda()
    replayed = copy.deepcopy(network)
    record(replayed, torch.randn(4, 1, 32, 32, device="cuda"))
    for plain, graphed in zip(network.buffers(), replayed.buffers(), strict=True):
        assert torch.equal(plain, graphed)
    for one in (network, replayed):
        optimizer = torch.optim.SGD(one.parameters(), lr=0.1)
        generator = torch.Generator("cuda").manual_seed(1)
        for _ in range(3):
            x = torch.randn(4, 1, 32, 32, device="cuda", generator=generator)
            optimizer.zero_grad()
            one(x).square().mean().backward()
            optimizer.step()
    for plain, graphed in zip(
        network.state_dict().values(), replayed.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(plain, graphed)
