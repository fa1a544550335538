"""Depth estimation: a depth in metres for each pixel.

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

from imex_experiments.facts import Facts
from imex_experiments.plots.depth import depth_comparison_sheet, depth_sheet
from imex_experiments.tasks.depth_metrics import (
    SCORES,
    VALID,
    Range,
    depth_scores,
    valid_pixels,
)
from imex_experiments.tasks.losses import depth_loss, require_loss
from imex_experiments.tasks.task import Task


class DepthTask(Task):
    """Depth from a single image.

    depth = depth_mean + depth_std x output, mean and standard deviation of the training
    depths from `facts`. `loss` is l2 (as published), l1, huber or silog. Scores are means
    over images. Images without a valid pixel are left out; `<split>/empty` counts them.
    `facts["depth_range"]` is the range of valid depths; predictions are clamped to it.
    `eigen_crop` restricts the scores to the central part of the image. Raises ValueError
    for an unknown loss.
    """

    monitor = "val/rmse"
    mode = "min"
    curves: ClassVar = {
        "loss": ("train/loss", "val/loss"),
        "misfit": ("val/misfit",),
        "RMSE [m]": ("val/rmse",),
        "delta < 1.25": ("val/delta1",),
    }

    needs = ("depth_mean", "depth_std")

    depth_mean: Tensor
    depth_std: Tensor

    def __init__(
        self,
        network: nn.Module,
        facts: Facts,
        optimizer: Callable[..., Optimizer] | None = None,
        scheduler: Callable[..., LRScheduler] | None = None,
        loss: Literal["l2", "l1", "huber", "silog"] = "l2",
        eigen_crop: bool = False,
        undecayed: Literal["norms"] | None = None,
    ) -> None:
        super().__init__(network, facts, optimizer, scheduler, undecayed)
        self.loss_name = require_loss(loss)
        self.eigen_crop = eigen_crop
        nearest, farthest = facts.get("depth_range", VALID)
        self.limits: Range = nearest, farthest
        mean, std = float(facts["depth_mean"]), float(facts["depth_std"])
        self.register_buffer("depth_mean", torch.tensor(mean), persistent=False)
        self.register_buffer("depth_std", torch.tensor(std), persistent=False)
        self.metrics = nn.ModuleDict({name: MeanMetric("ignore") for name in SCORES})
        self.mean_loss = MeanMetric()
        self.empty = SumMetric()

    def depth(self, images: Tensor) -> Tensor:
        """Return the depths of images in metres, not clamped."""
        return self._in_metres(self(images))

    def _in_metres(self, output: Tensor) -> Tensor:
        """Return the depths in metres, not clamped, for an output of the network."""
        return self.depth_mean + self.depth_std * output

    def loss(self, output: Tensor, targets: Tensor) -> Tensor:
        """Return the named loss over all valid pixels of the batch."""
        depth = self._in_metres(output)
        valid = valid_pixels(targets, limits=self.limits)
        return depth_loss(self.loss_name, depth, targets, valid, self.limits)

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        images, truth = batch
        depth = self._in_metres(self(images))
        valid = valid_pixels(truth, self.eigen_crop, self.limits)
        pixels = int(valid.sum())
        if pixels:
            loss = depth_loss(self.loss_name, depth, truth, valid, self.limits)
            self.mean_loss.update(loss, weight=pixels)
        self.empty.update((~valid.flatten(1).any(1)).sum())
        for name, values in depth_scores(depth, truth, valid, self.limits).items():
            cast(MeanMetric, self.metrics[name]).update(values)

    def _scores(self) -> dict[str, float]:
        metrics: dict[str, Any] = {**self.metrics}
        metrics |= {"loss": self.mean_loss, "empty": self.empty}
        return {name: float(metric.compute()) for name, metric in metrics.items()}

    def score(self, output: Tensor, targets: Tensor) -> float:
        """Return the RMSE in metres, the mean over the images with a valid pixel."""
        scores = self._scores_of(output, targets)
        return float(scores["rmse"].nanmean())

    def sample_losses(self, output: Tensor, targets: Tensor) -> Tensor:
        """Return the misfit of each image, (B,); 0 without a valid pixel."""
        return self._scores_of(output, targets)["misfit"].nan_to_num()

    def _scores_of(self, output: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return the scores of each image, name -> (B,)."""
        valid = valid_pixels(targets, self.eigen_crop, self.limits)
        return depth_scores(self._in_metres(output), targets, valid, self.limits)

    def _decide(self, output: Tensor) -> Tensor:
        """Return depths in metres, clamped to the valid range, (B, 1, H, W) float32."""
        return self._in_metres(output).float().clamp(*self.limits)

    def figures(self, images: Tensor, targets: Tensor) -> dict[str, np.ndarray]:
        prediction = self.predict(images)[:, 0].cpu().numpy()
        sheet = depth_sheet(
            self.pictures(images), targets[:, 0].cpu().numpy(), prediction
        )
        return {"depth": sheet}

    def comparison(
        self, images: Tensor, targets: Tensor, predictions: Mapping[str, Tensor]
    ) -> np.ndarray:
        depths = {title: depth[:, 0].numpy() for title, depth in predictions.items()}
        shown = self.pictures(images)
        return depth_comparison_sheet(shown, targets[:, 0].numpy(), depths)
