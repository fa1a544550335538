"""Resume a run with another configuration."""

from typing import Any

import pytorch_lightning as pl

from imex_experiments.config.build import refusing


class Reconfigured(pl.Callback):
    """Set optimizer and scheduler of a resumed run to the present configuration.

    A checkpoint restores the learning rate and the schedule that were configured when it
    was written. With `active` (resume_changed=true) the moments of the optimizer alone are
    kept, and the new schedule continues at the step of the checkpoint. Raises ConfigError
    if the new schedule ends before this step.
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
            fresh.step()  # changes nothing; a scheduler must follow an optimizer step
            with refusing("scheduler"):
                for _ in range(trainer.global_step):
                    scheduler.step()
            (config,) = trainer.lr_scheduler_configs
            config.scheduler.load_state_dict(scheduler.state_dict())
        groups = trainer.optimizers[0].param_groups
        for group, wanted in zip(groups, fresh.param_groups, strict=True):
            group |= {key: value for key, value in wanted.items() if key != "params"}
