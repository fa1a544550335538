"""A loss or a gradient that is not finite never reaches the weights, watched or not."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from imex_experiments.callbacks import FiniteCheck
from imex_experiments.errors import ConfigError, NumericsError

BAD = 3


class Line(pl.LightningModule):
    """y = w x + b by least squares; the images of step BAD are infinite."""

    def __init__(self, make: Callable[..., torch.optim.Optimizer]) -> None:
        super().__init__()
        self.network = nn.Linear(1, 1)
        self.make = make
        self.weights: list[dict[str, Tensor]] = []

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        self.weights.append(copy.deepcopy(self.network.state_dict()))
        return self.network(batch[0]).square().mean()

    def validation_step(self, batch: list[Tensor], index: int) -> None: ...

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.make(self.network.parameters())


def train(wait: bool, **options: Any) -> Line:
    torch.manual_seed(0)
    x = torch.rand(6, 1)
    x[BAD] = torch.inf
    line = Line(lambda weights: torch.optim.AdamW(weights, lr=0.1, **options))
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        callbacks=[FiniteCheck(wait)],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    batches = DataLoader(TensorDataset(x))
    with pytest.raises(NumericsError, match=f"the loss is inf at step {BAD};"):
        trainer.fit(line, batches, batches)
    return line


@pytest.mark.parametrize("wait", [True, False])
def test_weights_are_those_before_the_bad_step(wait: bool) -> None:
    """Without waiting the later steps run, and change nothing."""
    line = train(wait, fused=not wait)
    assert len(line.weights) == (BAD + 1 if wait else 6)
    assert not torch.equal(line.weights[BAD]["weight"], line.weights[0]["weight"])
    for name, value in line.network.state_dict().items():
        assert torch.equal(value, line.weights[BAD][name])


def test_only_fused_optimizers_can_leave_out_an_update() -> None:
    line = Line(lambda weights: torch.optim.SGD(weights, lr=0.1))
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, callbacks=[FiniteCheck(False)]
    )
    with pytest.raises(ConfigError, match=r"wait=false needs optimizer\.fused=true"):
        trainer.fit(line, DataLoader(TensorDataset(torch.rand(2, 1))))
