"""train.py, except that runs with certain seeds end badly after their first epoch.

Its children are this script again: it runs train.py's text under its own name.
"""

import os
import signal
from pathlib import Path
from typing import Any

import torch

from imex_experiments.callbacks import History

TRAIN = Path(__file__).parents[1] / "train.py"
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
exec(compile(TRAIN.read_text(), str(TRAIN), "exec"))
