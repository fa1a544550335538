"""Every pixel gets a depth in metres.

Shapes: images (B, 3, H, W) uint8; depths (B, 1, H, W) float32, metres, 0 where unknown.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric, SumMetric

from imex_experiments.plots.depth import depth_comparison_sheet, depth_sheet
from imex_experiments.tasks.depth_metrics import (
    FURTHEST,
    NEAREST,
    SCORES,
    depth_scores,
    valid_pixels,
)
from imex_experiments.tasks.losses import depth_loss, require_loss
from imex_experiments.tasks.task import Task


class DepthTask(Task):
    """Depth from one image; the network's output is read in units of the training depths.

    depth = depth_mean + depth_std x output, with the facts of the training split. `loss`
    is l2 (published), l1, huber or silog. Metrics are means over images of their scores;
    images without a valid pixel are left out and counted as `<split>/empty`. `eigen_crop`
    scores the central part only. ValueError for an unknown loss.
    """

    monitor = "val/rmse"
    mode = "min"
    curves: ClassVar = {
        "loss": ("train/loss", "val/loss"),
        "misfit": ("val/misfit",),
        "RMSE [m]": ("val/rmse",),
        "delta < 1.25": ("val/delta1",),
    }

    depth_mean: Tensor
    depth_std: Tensor

    def __init__(
        self,
        network: nn.Module,
        facts: Mapping[str, Any],
        optimizer: Callable[..., Optimizer] | None = None,
        scheduler: Callable[..., LRScheduler] | None = None,
        loss: Literal["l2", "l1", "huber", "silog"] = "l2",
        eigen_crop: bool = False,
        undecayed: Literal["norms"] | None = None,
    ) -> None:
        super().__init__(network, facts, optimizer, scheduler, undecayed)
        self.loss_name = require_loss(loss)
        self.eigen_crop = eigen_crop
        for name in ("depth_mean", "depth_std"):
            self.register_buffer(
                name, torch.tensor(float(facts[name])), persistent=False
            )
        self.scores = nn.ModuleDict({name: MeanMetric("ignore") for name in SCORES})
        self.mean_loss = MeanMetric()
        self.empty = SumMetric()

    def depth(self, images: Tensor) -> Tensor:
        """Depths in metres as the network gives them, not clamped."""
        return self._in_metres(self(images))

    def _in_metres(self, output: Tensor) -> Tensor:
        return self.depth_mean + self.depth_std * output

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        images, truth = batch
        loss = depth_loss(
            self.loss_name, self.depth(images), truth, valid_pixels(truth)
        )
        self.log("train/loss", loss, on_step=True, on_epoch=False, prog_bar=True)
        return self.regularised(loss)

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        images, truth = batch
        depth, valid = self.depth(images), valid_pixels(truth, self.eigen_crop)
        pixels = int(valid.sum())
        if pixels:
            loss = depth_loss(self.loss_name, depth, truth, valid)
            self.mean_loss.update(loss, weight=pixels)
        self.empty.update((~valid.flatten(1).any(1)).sum())
        for name, values in depth_scores(depth, truth, valid).items():
            cast(MeanMetric, self.scores[name]).update(values)

    def on_validation_epoch_end(self) -> None:
        self._log_scores("val")

    test_step = validation_step

    def on_test_epoch_end(self) -> None:
        self._log_scores("test")

    def _log_scores(self, split: str) -> None:
        metrics: dict[str, Any] = {**self.scores}
        metrics |= {"loss": self.mean_loss, "empty": self.empty}
        for name, metric in metrics.items():
            self.log(
                f"{split}/{name}", float(metric.compute()), prog_bar=name == "rmse"
            )
            metric.reset()

    def score(self, output: Tensor, targets: Tensor) -> float:
        """RMSE in metres, the mean over the images that have a valid pixel."""
        scores = self._scores_of(output, targets)
        return float(scores["rmse"].nanmean())

    def sample_losses(self, output: Tensor, targets: Tensor) -> Tensor:
        """The misfit of each image, 0 without a valid pixel."""
        return self._scores_of(output, targets)["misfit"].nan_to_num()

    def _scores_of(self, output: Tensor, targets: Tensor) -> dict[str, Tensor]:
        valid = valid_pixels(targets, self.eigen_crop)
        return depth_scores(self._in_metres(output), targets, valid)

    def _decide(self, output: Tensor) -> Tensor:
        """Metres, clamped to the range of valid depths, float32 (B, 1, H, W)."""
        return self._in_metres(output).float().clamp(NEAREST, FURTHEST)

    def figures(self, images: Tensor, targets: Tensor) -> dict[str, np.ndarray]:
        prediction = self.predict(images)[:, 0].cpu().numpy()
        sheet = depth_sheet(
            images.cpu().numpy(), targets[:, 0].cpu().numpy(), prediction
        )
        return {"depth": sheet}

    def comparison(
        self, images: Tensor, targets: Tensor, predictions: Mapping[str, Tensor]
    ) -> np.ndarray:
        depths = {title: depth[:, 0].numpy() for title, depth in predictions.items()}
        return depth_comparison_sheet(images.numpy(), targets[:, 0].numpy(), depths)
