"""What becomes of the solves of an implicit network: scalars, a warning, or the end."""

import logging
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from imex_experiments.callbacks import SolverLog
from imex_experiments.errors import NumericsError
from imex_experiments.integrators import Theta, TimeGrid
from imex_experiments.networks import DynamicBlock
from imex_experiments.terms import SkewSymmetricLayer

TRAINER = SimpleNamespace(global_step=7, current_epoch=2)


class Module(nn.Module):
    """A network of one implicit block, with the `log` of a LightningModule."""

    def __init__(self, max_iterations: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        scheme = Theta(0.5, solver="fixed_point", guess="state", tol=1e-5)
        scheme.max_iterations = max_iterations
        grid = TimeGrid.uniform(0.2, 3)
        self.network = DynamicBlock(2, grid, scheme, SkewSymmetricLayer, nn.Identity)
        self.scalars: dict[str, float] = {}

    def log(self, name: str, value: torch.Tensor) -> None:
        self.scalars[name] = float(value)


def step(callback: SolverLog, module: Module) -> None:
    callback.on_train_batch_start(TRAINER, module, None, 0)
    module.network(torch.randn(2, 2, 4, 4)).sum().backward()
    callback.on_before_optimizer_step(TRAINER, module, None)


def test_scalars_of_both_passes_and_silence_when_all_converge(
    caplog: pytest.LogCaptureFixture,
) -> None:
    callback, module = SolverLog(stop=True), Module(max_iterations=50)
    callback.on_fit_start(TRAINER, module)
    step(callback, module)
    assert 0 < module.scalars["solver/residual"] <= 1e-5
    assert 1 < module.scalars["solver/iterations"] < 50
    assert module.scalars["solver/converged"] == 1
    assert module.scalars["solver/adjoint_converged"] == 1
    callback.on_train_epoch_end(TRAINER, module)
    assert not caplog.records
    callback.on_fit_end(TRAINER, module)
    assert module.network.integrator.on_solve is None


def test_solves_that_do_not_converge_are_counted_once_per_epoch(
    caplog: pytest.LogCaptureFixture,
) -> None:
    callback, module = SolverLog(), Module(max_iterations=1)
    callback.on_fit_start(TRAINER, module)
    with caplog.at_level(logging.WARNING):
        step(callback, module)
        callback.on_train_epoch_end(TRAINER, module)
        callback.on_train_epoch_end(TRAINER, module)
    (record,) = caplog.records
    assert "of 12 solves did not converge in epoch 3" in record.getMessage()
    assert module.scalars["solver/converged"] < 1


def test_stop_ends_the_run_before_the_update() -> None:
    callback, module = SolverLog(stop=True), Module(max_iterations=1)
    callback.on_fit_start(TRAINER, module)
    with pytest.raises(
        NumericsError, match=r"6 of 6 solves did not converge at step 7"
    ):
        step(callback, module)


def test_solves_of_a_validation_are_left_out() -> None:
    callback, module = SolverLog(stop=True), Module(max_iterations=1)
    callback.on_fit_start(TRAINER, module)
    module.network(torch.randn(2, 2, 4, 4))
    module.network.integrator.max_iterations = 50
    step(callback, module)
    assert module.scalars["solver/converged"] == 1
