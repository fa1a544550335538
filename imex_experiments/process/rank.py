"""Identify this process in a training on several devices.

Lightning starts the same command once per device.
"""

import os

from pytorch_lightning.utilities import rank_zero_only


def is_first_process() -> bool:
    """Return True in the process that writes the run folder, False in all others."""
    return getattr(rank_zero_only, "rank", 0) == 0


def is_first_on_machine() -> bool:
    """Return True in the process that makes caches for all processes of its machine."""
    local = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID"))
    return is_first_process() if local is None else local == "0"
