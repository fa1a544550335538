"""One training on several devices: Lightning starts the same command once per device."""

from pytorch_lightning.utilities import rank_zero_only


def is_first_process() -> bool:
    """Whether this process keeps the run folder, and not a helper of the first one."""
    return getattr(rank_zero_only, "rank", 0) == 0
