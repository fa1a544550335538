"""Enclose a training: lock the run folder, record its end, evaluate and save results."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from imex_experiments.config.allow import at_keyboard
from imex_experiments.config.keys import CHANGED
from imex_experiments.facts import DataModule
from imex_experiments.process.rank import is_first_process
from imex_experiments.runs.checkpoint_io import (
    going_on_from,
    load_weights,
    read_checkpoint,
)
from imex_experiments.runs.folder import alone_in
from imex_experiments.runs.layout import FIGURES, LAST
from imex_experiments.runs.status import recording, write_command
from imex_experiments.tasks import Task
from imex_experiments.training.evaluation import evaluate
from imex_experiments.training.processes import alone_after_fit
from imex_experiments.training.report import (
    save_figures,
    save_results,
    show_metrics,
    show_next_commands,
)


@dataclass(frozen=True)
class Run:
    """A run folder locked by this process, and the content of its status.json."""

    cfg: DictConfig
    folder: Path
    status: dict[str, Any]
    more: Sequence[str]
    """Arguments that a command on this run needs again."""

    def begin(self, task: Task) -> Path | None:
        """Record the task in the status; return the checkpoint to resume from, if any."""
        self.status.update(task.scales)
        self.status["monitor"], self.status["mode"] = task.monitor, task.mode
        if self.cfg.resume is None:
            return None
        return going_on_from(self.folder) if is_first_process() else self.folder / LAST

    def conclude(
        self,
        trainer: pl.Trainer,
        task: Task,
        data: DataModule,
        measured: Mapping[str, float],
    ) -> float:
        """Evaluate the kept checkpoint, write metrics.json and figures; return the score.

        `measured` is added to the metrics. Raises CheckpointError if last.ckpt does not
        match its checksum. Returns 0 in the other processes of a distributed training.
        """
        with alone_after_fit(trainer) as first:
            if not first:
                return 0.0
            if trainer.checkpoint_callback:
                load_weights(task, self.folder)
            kept = evaluate(task, data, self.cfg.trainer, self.cfg.test)
            save_results(self.folder, trainer, {**kept, **measured})
            save_figures(task, data.samples("val", 6), self.folder / FIGURES)
            if trainer.checkpoint_callback:  # raises before "finished" is recorded
                read_checkpoint(self.folder / LAST)
            show_metrics(kept)
            show_next_commands(self.folder, self.more)
            return kept[task.monitor]


@contextmanager
def opened(cfg: DictConfig) -> Iterator[Run]:
    """Lock the run folder for the body, and keep its status.json up to date."""
    hydra = HydraConfig.get().runtime
    folder, choices = Path(hydra.output_dir), dict(hydra.choices)
    facts = {**{key: choices.get(key) for key in ("model", "data")}, "seed": cfg.seed}
    more = at_keyboard(cfg, HydraConfig.get())
    with alone_in(folder), recording(folder, more, **facts) as status:
        if cfg.resume is None or cfg[CHANGED]:
            write_command(folder, cfg)
        yield Run(cfg, folder, status, more)
