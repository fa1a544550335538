"""Train one network: `python train.py model=imexnet data=qtips` (see README.md)."""

import os
import sys
from contextlib import nullcontext
from tempfile import TemporaryDirectory

import hydra
from omegaconf import DictConfig

from imex_experiments.callbacks import History
from imex_experiments.config.arguments import keep_hooks, options_first, rewritten
from imex_experiments.installed import CONF, TRAIN
from imex_experiments.process.rank import is_first_process, started_by_lightning
from imex_experiments.process.tied import end_with_parent
from imex_experiments.runs.resume import resumed_arguments
from imex_experiments.sweeps.hooks import sweep_reported
from imex_experiments.sweeps.jobs import job
from imex_experiments.sweeps.resume import resumed_sweep
from imex_experiments.training.prepared import prepared
from imex_experiments.training.report import show_network
from imex_experiments.training.run import opened
from imex_experiments.training.trainer import (
    build_callbacks,
    build_loggers,
    build_trainer,
    speed_up,
)


def train(cfg: DictConfig) -> float:
    """Fit, keep the checkpoint that is best on validation, evaluate it; return its score."""
    with opened(cfg) as run:
        data, network, task = prepared()
        cost = show_network(network, data.image_shape)
        speed_up(network, cfg.trainer)
        callbacks = build_callbacks(cfg, otherwise=History(path=None))
        loggers = build_loggers(cfg)
        trainer = build_trainer(cfg, callbacks, loggers)

        trainer.fit(task, data, ckpt_path=run.begin(task))

        (history,) = (c for c in callbacks if isinstance(c, History))
        return run.conclude(trainer, task, data, {**history.measured(), **cost})


def main() -> None:
    """Hand sys.argv to Hydra; a resumed run or sweep gets those of its first command."""
    end_with_parent()
    first = is_first_process()
    with nullcontext("") if first else TemporaryDirectory() as elsewhere:
        if not started_by_lightning(sys.argv):
            given = rewritten(resumed_sweep(resumed_arguments(sys.argv[1:])))
            sys.argv[1:] = options_first(given)
            keep_hooks(sys.argv[1:])
            if not first:
                sys.argv += _of_another_process(elsewhere)
        application = hydra.main(str(CONF), "train", version_base="1.3")
        with sweep_reported():
            application(job(str(TRAIN))(train))()


def _of_another_process(elsewhere: str) -> list[str]:
    """Return overrides for a process that torchrun or SLURM started beside the first one.

    Lightning gives such to those that it starts. The name of a new run folder has the time,
    which is another one here; this process has a folder of its own, and it writes nothing.
    """
    named = any(word.startswith("hydra.run.dir=") for word in sys.argv)
    place = [] if named else [f"hydra.run.dir={elsewhere}"]
    name = f"hydra.job.name=train_process_{os.getpid()}"
    return [*place, name, "hydra.output_subdir=null"]
