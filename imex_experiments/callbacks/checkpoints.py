"""best.ckpt and last.ckpt."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint


class Checkpoints(ModelCheckpoint):
    """`best.ckpt` by the task's own validation metric, `last.ckpt` after every epoch."""

    def __init__(self, folder: str) -> None:
        super().__init__(
            dirpath=folder,
            filename="best",
            mode="max",
            monitor="set in setup",
            save_last=True,
            enable_version_counter=False,
        )

    def setup(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        self.monitor, self.mode = pl_module.monitor, pl_module.mode
        super().setup(trainer, pl_module, stage)
