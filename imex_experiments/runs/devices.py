"""One training on several devices: Lightning starts the same command once per device."""

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_only


def is_first_process() -> bool:
    """Whether this process keeps the run folder, and not a helper of the first one."""
    return getattr(rank_zero_only, "rank", 0) == 0


def alone_after_fit(trainer: pl.Trainer) -> bool:
    """Leave the others; False in their processes, which have nothing left to do.

    The kept checkpoint is evaluated by one process, so that no image counts twice to fill
    the last batch of another device.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        trainer.strategy.barrier()
        torch.distributed.destroy_process_group()
    return trainer.is_global_zero
