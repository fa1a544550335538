"""metrics.csv and one line per epoch in the log."""

import logging
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from imex_experiments.runs.contents import restoring
from imex_experiments.runs.errors import root_cause
from imex_experiments.runs.files import write_table

log = logging.getLogger(__name__)


class History(pl.Callback):
    """One row per validation: epoch, step, seconds of fit, lr, mean train/loss, val/*.

    The rows travel in the checkpoint, and the file is written anew with each of them: a
    resumed run goes on after the last row that its checkpoint knows. `seconds` is the
    wall-clock of fit over all its parts, validation included. A file that cannot be
    written is a warning, and an error only at the end of the run. Without a path the rows
    are kept, and nothing is written or logged.
    """

    def __init__(self, path: str | None) -> None:
        self.path = None if path is None else Path(path)
        self.seconds = 0.0
        self.rows: list[dict[str, Any]] = []
        self._since = 0.0
        self._losses: list[torch.Tensor] = []

    def state_dict(self) -> dict[str, Any]:
        losses = [float(loss) for loss in self._losses]
        return {"seconds": self.elapsed(), "rows": self.rows, "losses": losses}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        with restoring("callbacks.History"):
            self.seconds, self.rows = state_dict["seconds"], state_dict["rows"]
            self._losses = [torch.tensor(loss) for loss in state_dict["losses"]]

    def elapsed(self) -> float:
        """Seconds spent in fit so far."""
        return self.seconds + (
            time.perf_counter() - self._since if self._since else 0.0
        )

    def last(self) -> dict[str, float]:
        """Return `last/val/*`, what the final validation gave; nothing without one."""
        return {
            f"last/{name}": value
            for row in self.rows[-1:]
            for name, value in row.items()
            if name.startswith("val/")
        }

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._since = time.perf_counter()

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._losses = [loss.to(pl_module.device) for loss in self._losses]

    def on_fit_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.seconds, self._since = self.elapsed(), 0.0
        if trainer.is_global_zero and self.rows and self.path:
            write_table(self.path, self.rows)

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
        """Make the row here: checkpoints are saved right after, and must know it."""
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
        self.rows.append(row)
        if self.path is None:
            return
        try:
            write_table(self.path, self.rows)
        except OSError as error:
            log.warning("metrics.csv lags behind: %s", root_cause(error))
        shown = "  ".join(
            f"{name} {row[name]:.4f}"
            for name in ("train/loss", "val/loss", pl_module.monitor)
            if name in row
        )
        log.info("epoch %d/%s  %s", row["epoch"], trainer.max_epochs, shown)
