"""A callback that stops a training at a step until the test lets it go on."""

import os
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from imex_experiments.process.interrupts import INTERRUPTS


class Gate(pl.Callback):
    """Wait before a step while `<seed>_<step>` is in the folder of the variable GATES.

    A signal, which ends the training after that step, opens the gate too.
    """

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        name = f"{torch.initial_seed()}_{trainer.global_step}"
        gate = Path(os.environ["GATES"], name)
        if gate.exists():
            gate.with_suffix(".reached").touch()
            while gate.exists() and INTERRUPTS.pending is None:
                time.sleep(0.05)
