"""A run that goes on with another configuration."""

from typing import Any

import pytorch_lightning as pl

from imex_experiments.config.build import refusing


class Reconfigured(pl.Callback):
    """Optimizer and scheduler of a resumed run as they are configured now, at its step.

    A checkpoint brings the learning rate and the schedule of the time when it was written;
    `active` (resume_changed=true) keeps what it brings of moments alone. ConfigError if the
    new schedule is shorter than what has been trained.
    """

    def __init__(self, active: bool = False) -> None:
        self.active = active

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if not self.active:
            return
        fresh = pl_module.configure_optimizers()
        if isinstance(fresh, dict):
            scheduler = fresh["lr_scheduler"]["scheduler"]
            fresh = fresh["optimizer"]
            fresh.step()  # nothing has a gradient: only so that the scheduler may step
            with refusing("scheduler"):
                for _ in range(trainer.global_step):
                    scheduler.step()
            (config,) = trainer.lr_scheduler_configs
            config.scheduler.load_state_dict(scheduler.state_dict())
        groups = trainer.optimizers[0].param_groups
        for group, wanted in zip(groups, fresh.param_groups, strict=True):
            group |= {key: value for key, value in wanted.items() if key != "params"}
