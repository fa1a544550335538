"""Save and restore the states of random generators."""

import random
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch


class RandomState(pl.Callback):
    """The states of the generators of Python, NumPy, torch and CUDA in the checkpoint.

    They are restored before the first step. Data loaders have generators of their own, so
    nothing is drawn between.
    """

    def __init__(self) -> None:
        self._loaded: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        version, words, gauss = random.getstate()
        numpy: Any = np.random.get_state()
        name, keys, *position = numpy
        return {
            "python": [version, list(words), gauss],
            "numpy": [name, keys.tolist(), *position],
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._loaded = state_dict

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if self._loaded is None:
            return
        version, words, gauss = self._loaded["python"]
        random.setstate((version, tuple(words), gauss))
        np.random.set_state(tuple(self._loaded["numpy"]))
        torch.set_rng_state(self._loaded["torch"])
        if len(self._loaded["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(self._loaded["cuda"])
        self._loaded = None
