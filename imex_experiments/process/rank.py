"""Identify this process in a training on several devices.

Lightning starts the same command once per device; torchrun and SLURM start it themselves.
"""

import os
import re
from collections.abc import Iterable

from pytorch_lightning.utilities import rank_zero_only


def is_first_process() -> bool:
    """Return True in the process that writes the run folder, False in all others."""
    return getattr(rank_zero_only, "rank", 0) == 0


def is_first_on_machine() -> bool:
    """Return True in the process that makes caches for all processes of its machine."""
    local = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID"))
    return is_first_process() if local is None else local == "0"


def started_by_lightning(arguments: Iterable[str]) -> bool:
    """Return True in a process that Lightning started, with arguments of the first one."""
    return any(re.match(r"hydra\.job\.name=\w+_ddp_process_\d", a) for a in arguments)
