"""metrics.csv and one line per epoch in the log."""

import csv
import logging
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from imex_experiments.runs.load_run import read_history

log = logging.getLogger(__name__)


class History(pl.Callback):
    """One row per validation: epoch, step, seconds of fit, lr, mean train/loss, val/*.

    A resumed run goes on in the same file, after the last row that its checkpoint knows.
    `seconds` is the wall-clock of fit over all its parts, validation included.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.seconds = 0.0
        self._since = 0.0
        self._losses: list[torch.Tensor] = []

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.elapsed()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seconds = state_dict["seconds"]

    def elapsed(self) -> float:
        """Seconds spent in fit so far."""
        return self.seconds + (
            time.perf_counter() - self._since if self._since else 0.0
        )

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._since = time.perf_counter()

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.is_global_zero and self.path.exists():
            known = [
                row
                for row in read_history(self.path.parent)
                if int(row["step"]) <= trainer.global_step
            ]
            self.path.unlink()
            for row in known:
                self._append(row)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.seconds, self._since = self.elapsed(), 0.0

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self._losses.append(outputs["loss"].detach())

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Write the row here: checkpoints are saved right after, and must not know more."""
        if not self._losses or not trainer.is_global_zero:
            return
        row: dict[str, Any] = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            "seconds": round(self.elapsed(), 3),
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "train/loss": float(torch.stack(self._losses).mean()),
        }
        self._losses.clear()
        metrics = trainer.callback_metrics
        row |= {
            name: float(metrics[name]) for name in metrics if name.startswith("val/")
        }
        self._append(row)
        shown = "  ".join(
            f"{name} {row[name]:.4f}"
            for name in ("train/loss", "val/loss", pl_module.monitor)
            if name in row
        )
        log.info("epoch %d/%s  %s", row["epoch"], trainer.max_epochs, shown)

    def _append(self, row: dict[str, Any]) -> None:
        new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)
