"""Measure the cost of checkpoints, checks and exact resume, compared with plain Lightning.

`python scripts/benchmarks/cost_of_safety.py` trains the main job for `epochs` epochs, with and
without safety in turns. Safety is a finite check of loss and gradients, the states of the
random generators, and checkpoints that are synced, hashed and kept twice. Plain Lightning has
a ModelCheckpoint instead. The command prints the median of the ratios of `pairs` pairs, and
the seconds of the checks before a run.
"""

from imex_experiments.process.interrupts import end_at_once

if __name__ == "__main__":
    end_at_once()  # until the imports are done, which takes seconds

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from timing import interleaved

from imex_experiments.callbacks import (
    BatchStatistics,
    Checkpoints,
    FiniteCheck,
    History,
    RandomState,
)
from imex_experiments.config.arguments import parse_arguments
from imex_experiments.config.build import build
from imex_experiments.config.parts import build_parts, build_task
from imex_experiments.config.preflight import preflight
from imex_experiments.installed import CONF
from imex_experiments.process.command import run_command
from imex_experiments.runs.checkpoint_io import VerifiedCheckpointIO


@dataclass
class Arguments:
    pairs: int = 9
    epochs: int = 1
    clock: str = "wall"  # or cpu: CPU seconds, for a machine with other work
    train: int = 1024


def main() -> None:
    args = parse_arguments(Arguments)
    overrides = [f"data.train={args.train}", f"trainer.max_epochs={args.epochs}"]
    with (
        initialize_config_dir(str(CONF), version_base="1.3"),
        tempfile.TemporaryDirectory(dir=Path.cwd()) as folder,
    ):
        cfg = compose("train", [*overrides, f"run_dir={folder}"])
        begun = time.perf_counter()
        preflight(cfg)
        checked = time.perf_counter() - begun
        data = build(cfg.data, "data")
        data.setup()
        jobs: dict[str, Callable[[], object]] = {
            "safe": lambda: fit(cfg, data, Path(folder) / "safe", safe=True),
            "plain": lambda: fit(cfg, data, Path(folder) / "plain", safe=False),
        }
        timings = interleaved(jobs, args.pairs, float("inf"), args.clock)  # type: ignore
    pairs = zip(timings["safe"].samples, timings["plain"].samples, strict=True)
    ratios = [safe / plain for safe, plain in pairs]
    low, *_, high = statistics.quantiles(ratios, n=4)
    plain = statistics.median(timings["plain"].samples)
    print(f"checks before a run   {checked:.2f} s")
    print(f"training, plain       {plain:.2f} s ({args.epochs} epochs)")
    print(f"training, safe        x {statistics.median(ratios):.4f}")
    print(f"quartiles             x {low:.4f} ... x {high:.4f} of {len(ratios)} pairs")


def fit(cfg: DictConfig, data: Any, folder: Path, safe: bool) -> None:
    """Train once from the seed of the configuration, without output."""
    task = build_task(cfg, replace(build_parts(cfg), data=data))
    callbacks: list[pl.Callback] = [BatchStatistics(), History(str(folder / "m.csv"))]
    plugins: list[Any] = [TorchCheckpointIO()]
    folder.mkdir(exist_ok=True)
    if safe:
        callbacks += [RandomState(), FiniteCheck(), Checkpoints(str(folder))]
        plugins = [VerifiedCheckpointIO()]
    else:
        last: Any = {"save_last": True, "enable_version_counter": False}
        callbacks.append(
            ModelCheckpoint(
                folder, "best", monitor=task.monitor, mode=task.mode, **last
            )
        )
    trainer = pl.Trainer(
        max_epochs=cfg.trainer.max_epochs,
        accelerator="cpu",
        logger=False,
        callbacks=callbacks,
        plugins=plugins,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(task, data)


if __name__ == "__main__":
    run_command(main)
