"""metrics.csv and one line per epoch in the log."""

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
    """One row per validation: epoch, step, seconds of fit, lr, mean train/loss, val/*.

    A row is added to the end of the file, and the checkpoint knows how long the file is,
    and its SHA-256: a resumed run goes on after the last row that its checkpoint knows.
    `seconds` is the wall-clock of fit over all its parts, validation included. A file
    that cannot be written is a warning, and an error only at the end of the run; until
    then its rows wait, in the checkpoint too. Without a path nothing is written or logged.
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
        """Go on from a state; CheckpointError if it is no state of a history."""
        with restoring("callbacks.History"):
            self.seconds, self.waiting = state_dict["seconds"], state_dict["rows"]
            self._losses = [torch.tensor(loss) for loss in state_dict["losses"]]
            self.row = state_dict.get("last") or (self.waiting or [{}])[-1]
        if self.table and is_first_process():
            self.table.restore(state_dict.get("length", 0), state_dict.get("sha256"))

    def elapsed(self) -> float:
        """Seconds spent in fit so far."""
        return self.seconds + (
            time.perf_counter() - self._since if self._since else 0.0
        )

    def measured(self) -> dict[str, float]:
        """Return `train_seconds`, and the `last/val/*` of the final validation, if any."""
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
