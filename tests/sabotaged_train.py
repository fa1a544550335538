"""train.py, except that runs with certain seeds end badly after their first epoch.

Its children are this script again.
"""

import os
import signal
from pathlib import Path
from typing import Any

import torch

from imex_experiments.callbacks import History
from imex_experiments.commands import train
from imex_experiments.process.command import run_command

EXCEPTION, SYSTEM_EXIT, NAN, KILL = 101, 102, 103, 104

row_of = History.on_validation_end


def sabotage(self: History, trainer: Any, pl_module: Any) -> None:
    row_of(self, trainer, pl_module)
    match torch.initial_seed():
        case 101:
            raise RuntimeError("sabotaged")
        case 102:
            raise SystemExit(7)
        case 103:
            pl_module.network.head.get_parameter("weight").data.fill_(torch.nan)
        case 104:
            os.kill(os.getpid(), signal.SIGKILL)


if "HARMLESS" not in os.environ:
    History.on_validation_end = sabotage  # type: ignore[method-assign]
if __name__ == "__main__":
    train.TRAIN = Path(__file__)
    run_command(train.main)
