"""Log figures of validation images to every logger that takes images."""

from typing import Any

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.loggers import (
    Logger,
    MLFlowLogger,
    TensorBoardLogger,
    WandbLogger,
)

from imex_experiments.facts import DataModule


class Figures(pl.Callback):
    """Figures of the first `samples` validation images, logged after each validation.

    TensorBoard, wandb and MLflow take them; other loggers get none.
    """

    def __init__(self, samples: int = 6) -> None:
        if samples < 1:
            raise ValueError(f"samples must be >= 1, got {samples}")
        self.samples = samples

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        loggers = [logger for logger in trainer.loggers if isinstance(logger, SHOWING)]
        if not loggers or not trainer.is_global_zero:
            return
        data: DataModule = trainer.datamodule  # type: ignore[attr-defined]
        samples = data.samples("val", self.samples)
        step = trainer.global_step - 1  # as Lightning counts for scalars
        for name, sheet in pl_module.figures(*samples).items():
            for logger in loggers:
                _log_image(logger, f"val/{name}", sheet, step)


SHOWING = (TensorBoardLogger, WandbLogger, MLFlowLogger)
"""Classes of loggers that take images."""


def _log_image(logger: Logger, tag: str, image: np.ndarray, step: int) -> None:
    """Log an image (H, W, 3) uint8 under a tag, as each kind of logger takes it."""
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_image(tag, image, step, dataformats="HWC")
    elif isinstance(logger, WandbLogger):
        logger.log_image(tag, [image], step)
    elif isinstance(logger, MLFlowLogger):
        logger.experiment.log_image(logger.run_id, image, key=tag, step=step)
