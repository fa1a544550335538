"""Wrap a run around its training: hold its folder, record its end, keep its results."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from imex_experiments.config.keys import CHANGED
from imex_experiments.runs.checkpoint_io import going_on_from, read_checkpoint
from imex_experiments.runs.folder import alone_in
from imex_experiments.runs.layout import BEST, FIGURES, LAST
from imex_experiments.runs.status import recording, write_command
from imex_experiments.tasks import Task
from imex_experiments.training.evaluation import alone_after_fit, evaluate
from imex_experiments.training.report import (
    save_figures,
    save_results,
    show_metrics,
    show_next_commands,
)


@dataclass(frozen=True)
class Run:
    """The folder of a run, which this process holds, and what its status.json will say."""

    cfg: DictConfig
    folder: Path
    status: dict[str, Any]

    def begin(self, task: Task) -> Path | None:
        """Record what is trained; return the checkpoint to go on from, None for a new run."""
        self.status["h"], self.status["alpha"] = task.network.h, task.network.alpha
        self.status["monitor"], self.status["mode"] = task.monitor, task.mode
        return None if self.cfg.resume is None else going_on_from(self.folder)

    def conclude(
        self, trainer: pl.Trainer, task: Task, data: Any, measured: Mapping[str, float]
    ) -> float:
        """Evaluate the kept checkpoint, write metrics.json and figures; return the score.

        `measured` joins the metrics. CheckpointError if last.ckpt does not verify.
        """
        if not alone_after_fit(trainer):
            return 0.0
        if trainer.checkpoint_callback:
            task.load_state_dict(read_checkpoint(self.folder / BEST)["state_dict"])
        kept = evaluate(task, data, self.cfg.trainer, self.cfg.test)
        save_results(self.folder, trainer, {**kept, **measured})
        save_figures(task, data.samples("val", 6), self.folder / FIGURES)
        if trainer.checkpoint_callback:
            read_checkpoint(self.folder / LAST)  # or the run has not finished
        show_metrics(kept)
        show_next_commands(self.folder)
        return kept[task.monitor]


@contextmanager
def opened(cfg: DictConfig) -> Iterator[Run]:
    """Hold the run's folder for the body, and keep its status.json true."""
    hydra = HydraConfig.get().runtime
    folder, choices = Path(hydra.output_dir), dict(hydra.choices)
    facts = {**{key: choices.get(key) for key in ("model", "data")}, "seed": cfg.seed}
    with alone_in(folder), recording(folder, **facts) as status:
        if cfg.resume is None or cfg[CHANGED]:
            write_command(folder, cfg)
        yield Run(cfg, folder, status)
