"""Write best.ckpt and last.ckpt, and end a run at a signal."""

import math
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.trainer.states import TrainerFn

from imex_experiments.errors import Terminated, exit_code
from imex_experiments.process.interrupts import INTERRUPTS
from imex_experiments.process.rank import is_first_process
from imex_experiments.runs.checkpoint_io import copy_checkpoint
from imex_experiments.runs.layout import BEST, LAST


class Checkpoints(ModelCheckpoint):
    """Write `last.ckpt` after every epoch and at a signal, `best.ckpt` by validation.

    `best.ckpt` has the best value of the metric that the task monitors. In a run that ends
    before its first validation it is a copy of `last.ckpt`.

    With `every_steps`, `last.ckpt` is also written within an epoch, each time after so many
    optimizer steps. Checkpoints within an epoch follow an optimizer step, so that no
    gradients are accumulated.

    On several devices every process calls these hooks, and the first one writes. They all
    end after the same step where any of them received a signal. A data loader that has no
    EpochSampler of its own begins its epoch again after a resume.

    It is a ModelCheckpoint, because Lightning looks for `ckpt_path="best"` and "last" in
    one; all of its hooks are defined here.
    """

    def __init__(self, folder: str, every_steps: int | None = None) -> None:
        if every_steps is not None and every_steps < 1:
            raise ValueError(f"every_steps must be >= 1 or null, got {every_steps}")
        super().__init__(dirpath=folder)
        self.last, self.best = (Path(folder) / path.name for path in (LAST, BEST))
        self.best_model_path = str(self.best)
        self.every_steps = every_steps
        self.best_score = math.nan
        self._saved_at = 0

    @property
    def state_key(self) -> str:
        return type(self).__qualname__

    def setup(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        """Do nothing: the folder is known, and holds the checkpoints of a resumed run."""

    def _find_last_checkpoints(self, trainer: pl.Trainer) -> set[str]:
        return {str(self.last)}

    def state_dict(self) -> dict[str, Any]:
        return {"best_score": self.best_score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best score, unless the best.ckpt that has it is gone."""
        if self.best.is_file():
            self.best_score = state_dict["best_score"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        # Lightning restores the position when it makes the loader. It has made the loader
        # before it read the checkpoint, to count the steps for a scheduler.
        trainer.fit_loop._load_combined_loader_states()
        self._saved_at = trainer.global_step
        INTERRUPTS.hold()

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        INTERRUPTS.release()
        _end_if(_interrupted(trainer))

    def on_fit_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Copy last.ckpt to best.ckpt after a run without a validation.

        Lightning calls it even if a resumed run has no step left, unlike `on_train_end`.
        """
        if math.isnan(self.best_score) and trainer.is_global_zero:
            copy_checkpoint(self.last, self.best)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: Any, exception: BaseException
    ) -> None:
        INTERRUPTS.release()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        step = trainer.global_step
        within = not (trainer.is_last_batch or trainer.fit_loop._should_accumulate())
        if not within:
            return
        due = self.every_steps is not None and step % self.every_steps == 0
        interrupted = _interrupted(trainer)
        if due or interrupted:
            self._save(trainer)
        _end_if(interrupted)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Write best.ckpt before last.ckpt.

        After a kill in between, the resumed run repeats the validation and writes both.
        """
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        score = float(trainer.callback_metrics[pl_module.monitor])
        sign = 1 if pl_module.mode == "max" else -1
        if math.isnan(self.best_score) or sign * score > sign * self.best_score:
            self.best_score = score
            trainer.save_checkpoint(self.best)
            self._save(trainer, copy=True)
        else:
            self._save(trainer)
        _end_if(_interrupted(trainer))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if self._saved_at != trainer.global_step:  # an epoch without validation
            self._save(trainer)
        _end_if(_interrupted(trainer))

    def _save(self, trainer: pl.Trainer, copy: bool = False) -> None:
        self._saved_at = trainer.global_step
        if not copy:
            trainer.save_checkpoint(self.last)
        elif trainer.is_global_zero:
            copy_checkpoint(self.best, self.last)


def _interrupted(trainer: pl.Trainer) -> bool:
    """Return True in all processes of a training if one of them received a signal."""
    pending = INTERRUPTS.pending is not None
    return trainer.strategy.reduce_boolean_decision(pending, all=False)


def _end_if(interrupted: bool) -> None:
    """End an interrupted training, which has been saved; the first process reports it."""
    if not interrupted:
        return
    error = INTERRUPTS.pending or Terminated("a signal to another of its processes")
    if is_first_process():
        raise error
    raise SystemExit(exit_code(error))
