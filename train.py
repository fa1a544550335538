"""Train one network: `python train.py model=imexnet data=qtips` (see README.md)."""

from imex_experiments.runs.interrupts import end_at_once

if __name__ == "__main__":
    end_at_once()  # until the imports are done, which takes seconds

import sys
from pathlib import Path
from typing import Any

import hydra
import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from imex_experiments.callbacks import History
from imex_experiments.operators import fused_cpp
from imex_experiments.runs.assemble import (
    build_network,
    build_task,
    build_trainer,
    speed_up,
)
from imex_experiments.runs.checkpoint_io import going_on_from, read_checkpoint
from imex_experiments.runs.command import job, keep_hooks, run_command, without_null
from imex_experiments.runs.devices import alone_after_fit, is_first_process
from imex_experiments.runs.evaluation import evaluate
from imex_experiments.runs.layout import BEST, FIGURES, LAST
from imex_experiments.runs.prepared import prepared_data
from imex_experiments.runs.record import alone_in, recording, write_command
from imex_experiments.runs.report import (
    save_figures,
    save_results,
    show_metrics,
    show_network,
    show_next_commands,
)
from imex_experiments.runs.resume import CHANGED, resumed_arguments
from imex_experiments.runs.sweep import end_with_parent, resumed_sweep


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
@job(script=__file__)
def train(cfg: DictConfig) -> float:
    """Fit, keep the checkpoint that is best on validation, evaluate it; return its score."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    choices: Any = HydraConfig.get().runtime.choices
    facts = {"model": choices.model, "data": choices.data, "seed": cfg.seed}
    facts["kernels"] = fused_cpp.library() is not None  # they round in their own order
    with alone_in(folder), recording(folder, **facts) as status:
        if cfg.resume is None or cfg[CHANGED]:
            write_command(folder, cfg)
        pl.seed_everything(cfg.seed, workers=True, verbose=False)
        data = prepared_data()
        network = build_network(cfg, data)
        cost = show_network(network, data.image_shape)
        task = build_task(cfg, network, data.facts)
        status |= {"h": network.h, "alpha": network.alpha}
        status |= {"monitor": task.monitor, "mode": task.mode}
        speed_up(network, cfg.trainer)
        trainer: Any = build_trainer(cfg, instead=History(path=None))
        (history,) = (c for c in trainer.callbacks if isinstance(c, History))

        trainer.fit(task, data, ckpt_path=going_on_from(folder) if cfg.resume else None)

        if not alone_after_fit(trainer):
            return 0.0
        if trainer.checkpoint_callback:
            task.load_state_dict(read_checkpoint(folder / BEST)["state_dict"])
        kept = evaluate(task, data, cfg.trainer)
        seconds = {"train_seconds": history.elapsed()}
        save_results(folder, trainer, {**kept, **history.last(), **cost, **seconds})
        save_figures(task, data.samples("val", 6), folder / FIGURES)
        if trainer.checkpoint_callback:
            read_checkpoint(folder / LAST)  # it verifies, or the run has not finished
    show_metrics(kept)
    show_next_commands(folder)
    return kept[task.monitor]


def main() -> None:
    """Hydra reads sys.argv; a resumed run or sweep gets the words of its first command."""
    end_with_parent()
    if is_first_process():
        sys.argv[1:] = without_null(resumed_sweep(resumed_arguments(sys.argv[1:])))
        keep_hooks(sys.argv[1:])
    train()


if __name__ == "__main__":
    run_command(main)
