"""Write metrics.csv, and one line per epoch to the log."""

import logging
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from imex_experiments.errors import root_cause
from imex_experiments.files import GrowingTable
from imex_experiments.process.rank import is_first_process
from imex_experiments.runs.contents import restoring

log = logging.getLogger(__name__)


class History(pl.Callback):
    """A table with one row per validation: epoch, step, seconds, lr, train/loss, val/*.

    `seconds` is the wall-clock time of fit, validation and earlier parts of a resumed run
    included; `train/loss` is the mean since the last row. A checkpoint has the length of
    the file and its SHA-256, and a resumed run continues after the last row of its
    checkpoint. If the file cannot be written, rows wait in memory and in the checkpoint,
    with a warning; at the end of the run this is an error. Without a path nothing is
    written or logged.
    """

    def __init__(self, path: str | None) -> None:
        self.table = None if path is None else GrowingTable(Path(path))
        self.seconds = 0.0
        self.row: dict[str, Any] = {}
        self.waiting: list[dict[str, Any]] = []
        self._since = 0.0
        self._losses: list[torch.Tensor] = []

    def state_dict(self) -> dict[str, Any]:
        losses = [float(loss) for loss in self._losses]
        rows = {"last": self.row, "rows": self.waiting}
        written = self.table.state() if self.table else {}
        return {"seconds": self.elapsed(), "losses": losses, **rows, **written}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a state. Raises CheckpointError if it is not the state of a History."""
        with restoring("callbacks.History"):
            self.seconds, self.waiting = state_dict["seconds"], state_dict["rows"]
            self._losses = [torch.tensor(loss) for loss in state_dict["losses"]]
            self.row = state_dict.get("last") or (self.waiting or [{}])[-1]
        if self.table and is_first_process():
            self.table.restore(state_dict.get("length", 0), state_dict.get("sha256"))

    def elapsed(self) -> float:
        """Return the seconds spent in fit so far."""
        return self.seconds + (
            time.perf_counter() - self._since if self._since else 0.0
        )

    def measured(self) -> dict[str, float]:
        """Return `train_seconds`, and the scores of the last validation as `last/val/*`."""
        last = {
            f"last/{name}": value
            for name, value in self.row.items()
            if name.startswith("val/")
        }
        return {**last, "train_seconds": self.elapsed()}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._since = time.perf_counter()

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._losses = [loss.to(pl_module.device) for loss in self._losses]

    def on_fit_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.seconds, self._since = self.elapsed(), 0.0
        if trainer.is_global_zero:
            self._write()

    def _write(self) -> None:
        if self.table:
            self.table.append(self.waiting)
            self.waiting = []

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        loss = outputs["loss"].detach().clone()
        self._losses.append(trainer.strategy.reduce(loss, reduce_op="mean"))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Write the row before checkpoints are saved, which happens right after."""
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
        self.row = row
        if self.table is None:
            return
        self.waiting = [*self.waiting, row]
        try:
            self._write()
        except OSError as error:
            log.warning("metrics.csv lags behind: %s", root_cause(error))
        shown = "  ".join(
            f"{name} {row[name]:.4f}"
            for name in ("train/loss", "val/loss", pl_module.monitor)
            if name in row
        )
        log.info("epoch %d/%s  %s", row["epoch"], trainer.max_epochs, shown)
