"""Replay the training pass of a network as CUDA graphs."""

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from imex_experiments.facts import DataModule


class StepGraphs(pl.Callback):
    """Record forward and backward pass of the network once, and replay them in training.

    The time of a small network is spent on launching kernels; a graph needs one launch.
    Batches of another size, evaluation and passes without gradients run without graphs.
    The recording changes neither weights nor running averages. It needs a training on one
    device.
    """

    def __init__(self, active: bool = False) -> None:
        self.active = active

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if not self.active:
            return
        data: DataModule = trainer.datamodule  # type: ignore[attr-defined]
        images, *_ = data.samples("train", data.batch_size)
        x = pl_module.normalised(images.to(pl_module.device))
        pl_module.train()  # the mode of the first batch
        with trainer.precision_plugin.forward_context():
            record(pl_module.network, x)


def record(network: nn.Module, x: Tensor) -> None:
    """Replace `network.forward` in training, for images of the shape of x."""
    plain = network.forward
    before = {name: value.clone() for name, value in network.state_dict().items()}
    device, dtype = x.device.type, torch.get_autocast_dtype(x.device.type)
    with torch.autocast(
        device,
        dtype,
        enabled=torch.is_autocast_enabled(device),
        cache_enabled=False,  # a cached cast would not be part of the graph
    ):
        torch.cuda.make_graphed_callables(network, (x,), allow_unused_input=True)
    replayed = network.forward
    for name, value in network.state_dict().items():
        value.copy_(before[name])

    def forward(y: Tensor) -> Tensor:
        recorded = network.training and torch.is_grad_enabled() and y.shape == x.shape
        return replayed(y) if recorded else plain(y)

    network.forward = forward
