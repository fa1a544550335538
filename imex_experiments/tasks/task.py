"""What every task shares: normalisation, optimizer, and the network as an argument."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from imex_experiments.tasks.optimisation import undecayed_norms


class Task(pl.LightningModule):
    """A network with its loss, its metrics and its optimizer.

    `facts` are what the training split tells (plain numbers and lists); they travel in the
    checkpoint. `facts["mean"]` and `facts["std"]` normalise the uint8 images
    (B, C, H, W), per channel, inside of the task, so that nobody else has to.
    `optimizer(parameters)` and `scheduler(optimizer, total_steps=)` make the rest; the
    scheduler moves once per optimizer step. `undecayed="norms"` keeps the weight decay off
    the weights and biases of norms.
    """

    monitor: ClassVar[str]
    """The validation metric that decides which checkpoint is kept."""

    mode: ClassVar[Literal["min", "max"]]
    """Which end of it is good."""

    curves: ClassVar[Mapping[str, Sequence[str]]]
    """Layout of the custom-scalars dashboard: chart -> metrics on it."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        facts: Mapping[str, Any],
        optimizer: Callable[..., Optimizer] | None = None,
        scheduler: Callable[..., LRScheduler] | None = None,
        undecayed: Literal["norms"] | None = None,
    ) -> None:
        super().__init__()
        if undecayed not in (None, "norms"):
            raise ValueError(f"undecayed must be null or norms, got {undecayed!r}")
        self.network = network
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.undecayed = undecayed
        self.save_hyperparameters({"facts": dict(facts)}, logger=False)
        for name in ("mean", "std"):
            value = torch.tensor(facts[name], dtype=torch.float32)
            self.register_buffer(name, value.view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """The network's output for uint8 images (B, C, H, W)."""
        return self.network(self.normalised(images))

    def normalised(self, images: Tensor) -> Tensor:
        """What the network sees of images (B, C, H, W) with grey values of 0 to 255."""
        return (images.float() - self.mean) / self.std

    def predict(self, images: Tensor) -> Tensor:
        """Return what the task predicts for what `evaluated` takes."""
        return self._decide(self.evaluated(images))

    def evaluated(self, images: Tensor) -> Tensor:
        """Return the network's output for inputs (B, C, H, W), in evaluation mode.

        Inputs are uint8 images, or floats where the task learned from points.
        ValueError for others: grey values between 0 and 1 would be read as of 0 to 255.
        """
        points = "range" in self.hparams["facts"]
        fits = images.is_floating_point() if points else images.dtype == torch.uint8
        channels = self.mean.shape[1]
        if not fits or images.ndim != 4 or images.shape[1] != channels:
            wanted = "floats" if points else "uint8 images, 0 to 255,"
            found = str(images.dtype).removeprefix("torch.")
            raise ValueError(
                f"expected {wanted} of shape (N, {channels}, H, W), "
                f"got {found} of shape {tuple(images.shape)}"
            )
        training = self.training
        self.eval()
        with torch.inference_mode():
            output = self(images.to(self.device))
        self.train(training)
        return output

    def regularised(self, loss: Tensor) -> Tensor:
        """The loss with what the network asks to be added: `network.penalty()`, if any."""
        ask = getattr(self.network, "penalty", None)
        penalty = None if ask is None else ask()
        if penalty is None:
            return loss
        self.log("train/penalty", penalty, on_step=True, on_epoch=False)
        return loss + penalty

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        # A tensor of the host: a number would be sent to the device, which waits for it.
        lr = torch.tensor(self.trainer.optimizers[0].param_groups[0]["lr"])
        self.log("train/lr", lr)

    @abstractmethod
    def _decide(self, output: Tensor) -> Tensor:
        """From the network's output to the prediction."""

    def score(self, output: Tensor, targets: Tensor) -> float:
        """The monitored metric of outputs (B, ...) of the network; for tasks per pixel.

        ValueError for a task without one.
        """
        raise ValueError(f"{type(self).__name__} has no score of single outputs")

    def sample_losses(self, output: Tensor, targets: Tensor) -> Tensor:
        """(B,): what an attack makes large; for tasks per pixel, ValueError for others."""
        raise ValueError(f"{type(self).__name__} has no loss of single samples")

    @abstractmethod
    def figures(self, images: Tensor, targets: Tensor) -> dict[str, np.ndarray]:
        """Pictures of some samples, name -> (H, W, 3) uint8."""

    def comparison(
        self, images: Tensor, targets: Tensor, predictions: Mapping[str, Tensor]
    ) -> np.ndarray:
        """One picture of what several networks predict, by title; (H, W, 3) uint8.

        ValueError for a task that has none.
        """
        raise ValueError(f"{type(self).__name__} has no picture that compares networks")

    def new_optimizer(self) -> Optimizer:
        """Return an optimizer of the network's weights as configured, without history."""
        assert self.make_optimizer is not None, (
            "this task was built without an optimizer"
        )
        return self.make_optimizer(
            undecayed_norms(self.network)
            if self.undecayed == "norms"
            else self.network.parameters()
        )

    def configure_optimizers(self) -> Any:
        optimizer = self.new_optimizer()
        if self.make_scheduler is None:
            return optimizer
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = self.make_scheduler(optimizer, total_steps=steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }
