"""Identify this process in a training on several devices.

Lightning starts the same command once per device.
"""

from pytorch_lightning.utilities import rank_zero_only


def is_first_process() -> bool:
    """Return True in the process that writes the run folder, False in all others."""
    return getattr(rank_zero_only, "rank", 0) == 0
