"""The base class of all tasks: normalisation, training and evaluation steps, optimizer.

Shapes: inputs (B, C, H, W), uint8 or float32 as `facts["dtype"]` says, points with
H = W = 1; outputs and targets (B, ...), as each task defines them.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric

from imex_experiments.facts import Facts, complete
from imex_experiments.tasks.freezing import frozen_norms
from imex_experiments.tasks.optimisation import undecayed_norms
from imex_experiments.tasks.whole import in_parts, tiled

MOST_PIXELS = 2**20
"""Most pixels that are evaluated at a time, unless a single image has more."""


class Task(pl.LightningModule):
    """A network with its loss, its metrics and its optimizer.

    `facts` are properties of the training split; checkpoints contain them, completed by
    `facts.complete`. `facts["mean"]` and `facts["std"]`, one number per channel, normalise the
    inputs inside the task. `optimizer(parameters)` returns the optimizer.
    `scheduler(optimizer, total_steps=)` returns the scheduler, which steps once per
    optimizer step. `undecayed="norms"` exempts the weights and biases of norms from weight
    decay. Raises ValueError for another value of `undecayed`, and for unsound facts.

    A subclass defines `loss`, `validation_step`, `_scores`, `_decide` and `figures`.
    """

    monitor: ClassVar[str]
    """The validation metric that decides which checkpoint is kept, `val/<score>`."""

    mode: ClassVar[Literal["min", "max"]]
    """The better end of the monitored metric."""

    curves: ClassVar[Mapping[str, Sequence[str]]]
    """The custom-scalars dashboard of TensorBoard: chart -> metrics on it."""

    needs: ClassVar[Sequence[str]] = ()
    """Facts that the task needs beside those that all data modules state."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        facts: Facts,
        optimizer: Callable[..., Optimizer] | None = None,
        scheduler: Callable[..., LRScheduler] | None = None,
        undecayed: Literal["norms"] | None = None,
    ) -> None:
        super().__init__()
        if undecayed not in (None, "norms"):
            raise ValueError(f"undecayed must be null or norms, got {undecayed!r}")
        self.network, self.facts = network, complete(facts, self.needs)
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.undecayed = undecayed
        self.save_hyperparameters({"facts": dict(self.facts)}, logger=False)
        for name, values in (("mean", facts["mean"]), ("std", facts["std"])):
            value = torch.tensor(values, dtype=torch.float32)
            self.register_buffer(name, value.view(1, -1, 1, 1), persistent=False)
        for norm in frozen_norms(network):
            norm.eval()

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode; frozen norms stay in evaluation mode."""
        super().train(mode)
        for norm in frozen_norms(self):
            norm.eval()
        return self

    @property
    def scales(self) -> dict[str, float | None]:
        """Return h and alpha of the network; None for one that it does not have."""
        found = {name: getattr(self.network, name, None) for name in ("h", "alpha")}
        return {
            k: None if value is None else float(value) for k, value in found.items()
        }

    def forward(self, images: Tensor) -> Tensor:
        """Return the network's output for inputs (B, C, H, W) before normalisation."""
        return self.network(self.normalised(images))

    def normalised(self, images: Tensor) -> Tensor:
        """Return the input of the network: (images - mean) / std, per channel."""
        return (images.float() - self.mean) / self.std

    def predict(self, images: Tensor, tile: int | None = None) -> Tensor:
        """Return the prediction for inputs as in `evaluated`; its form is the task's.

        With `tile`, the outputs of tiles of this size are blended, see `whole.tiled`; they
        start at multiples of `network.multiple`, if the network has it.
        """
        if tile is None:
            return self._decide(self.evaluated(images))
        multiple = getattr(self.network, "multiple", 1)
        return self._decide(tiled(self.evaluated, images, tile, multiple=multiple))

    def evaluated(self, images: Tensor) -> Tensor:
        """Return the network's output for inputs (B, C, H, W), in evaluation mode.

        Inputs are of the type that `facts["dtype"]` names, or of any float type for
        float32. Raises ValueError for others: grey values from 0 to 1 would be normalised
        as 0 to 255.
        """
        floats = self.facts["dtype"] == "float32"
        fits = images.is_floating_point() if floats else images.dtype == torch.uint8
        channels = self.mean.shape[1]
        if not fits or images.ndim != 4 or images.shape[1] != channels:
            wanted = "floats" if floats else "uint8 images, 0 to 255,"
            found = str(images.dtype).removeprefix("torch.")
            raise ValueError(
                f"expected {wanted} of shape (N, {channels}, H, W), "
                f"got {found} of shape {tuple(images.shape)}"
            )
        training = self.training
        self.eval()
        with torch.inference_mode():
            output = in_parts(self, images.to(self.device), MOST_PIXELS)
        self.train(training)
        return output

    def regularised(self, loss: Tensor) -> Tensor:
        """Return the loss plus `network.penalty()`, if the network has a penalty."""
        penalty = getattr(self.network, "penalty", lambda: None)()
        if penalty is None:
            return loss
        self.log("train/penalty", penalty, on_step=True, on_epoch=False)
        return loss + penalty

    @abstractmethod
    def loss(self, output: Tensor, targets: Tensor) -> Tensor:
        """Return the training loss of a batch, a scalar, without the penalty."""

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        inputs, targets = batch
        loss = self.loss(self(inputs), targets)
        self.log("train/loss", loss, on_step=True, on_epoch=False, prog_bar=True)
        return self.regularised(loss)

    @abstractmethod
    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """Update the metrics of the task with a batch."""

    @abstractmethod
    def _scores(self) -> dict[str, float]:
        """Return the scores of a whole split, name -> value, from the metrics."""

    def test_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        self.validation_step(batch, index)

    def predict_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """Return the prediction for the inputs of a batch, as `predict` does."""
        inputs, _ = batch
        return self.predict(inputs)

    def on_validation_epoch_end(self) -> None:
        self._log_scores("val")

    def on_test_epoch_end(self) -> None:
        self._log_scores("test")

    def _log_scores(self, split: str) -> None:
        """Log the scores as `<split>/<name>`, and reset the metrics."""
        for name, value in self._scores().items():
            self.log(f"{split}/{name}", value, prog_bar=f"val/{name}" == self.monitor)
        for module in self.modules():
            if isinstance(module, Metric):
                module.reset()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        # A CPU tensor, because a number would be copied to the device and stall it.
        lr = torch.tensor(self.trainer.optimizers[0].param_groups[0]["lr"])
        self.log("train/lr", lr)

    @abstractmethod
    def _decide(self, output: Tensor) -> Tensor:
        """Return the prediction for an output of the network."""

    def score(self, output: Tensor, targets: Tensor) -> float:
        """Return the monitored metric of single outputs of the network.

        Only tasks with a prediction per pixel have it; others raise ValueError.
        """
        raise ValueError(f"{type(self).__name__} has no score of single outputs")

    def sample_losses(self, output: Tensor, targets: Tensor) -> Tensor:
        """Return one loss per sample, (B,), for an attack to maximise.

        Only tasks with a prediction per pixel have it; others raise ValueError.
        """
        raise ValueError(f"{type(self).__name__} has no loss of single samples")

    def pictures(self, images: Tensor) -> np.ndarray:
        """Return inputs (B, C, H, W) as uint8 pictures, for figures.

        Floats within two standard deviations of their channel's mean become 0 to 255.
        """
        if not images.is_floating_point():
            return images.cpu().numpy()
        spread = self.normalised(images.to(self.device)) / 2  # -1 to 1
        return (127.5 * (1 + spread)).clamp(0, 255).byte().cpu().numpy()

    @abstractmethod
    def figures(self, images: Tensor, targets: Tensor) -> dict[str, np.ndarray]:
        """Return pictures of some samples, name -> (H, W, 3) uint8."""

    def comparison(
        self, images: Tensor, targets: Tensor, predictions: Mapping[str, Tensor]
    ) -> np.ndarray:
        """Return a picture of the predictions of several networks, (H, W, 3) uint8.

        `predictions` has a title per network. Raises ValueError for a task without one.
        """
        raise ValueError(f"{type(self).__name__} has no picture that compares networks")

    def new_optimizer(self) -> Optimizer:
        """Return a new optimizer of the network's weights, as configured.

        It has the frozen ones too, which have no gradient, so that it leaves them alone.
        """
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
