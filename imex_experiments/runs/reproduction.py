"""The published experiments as sweeps of train.py, and the numbers that were published."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from imex_experiments.runs.errors import ConfigError
from imex_experiments.runs.interrupts import INTERRUPTS
from imex_experiments.runs.layout import hydra_quoted, sweep_file
from imex_experiments.runs.preflight import make_private
from imex_experiments.runs.sweep import run_tied, sweep_words


@dataclass(frozen=True)
class Published:
    """What the paper gives for a network: trainable weights, and the score if it has one."""

    parameters: int
    score: float | None = None


@dataclass(frozen=True)
class Sweep:
    """Networks that differ in one thing: `words` of train.py, repeated over the seeds."""

    name: str
    title: str
    words: tuple[str, ...]
    published: Mapping[str, Published] = field(default_factory=dict)


TABLE1 = "experiment=qtips_table1"
UNET = ("model=unet", "model.widths=[56,112,168,224]")
"""Near the weights of the published networks: 2,664,312."""

THEIRS = (
    *("optimizer=sgd", "scheduler=constant"),
    *("data.batch_size=8", "trainer.max_epochs=200"),
)
OURS = (
    *("optimizer=adamw", "optimizer.lr=0.001", "scheduler=onecycle"),
    *("data.batch_size=16", "trainer.max_epochs=30"),
)
"""The recipe of the main job; at this size the learning rate is a tenth of its 0.01."""

FROM_LAPLACIAN = "model.diffusion.init=laplacian"
WIDTHS = "model.widths=[1,2,4],[2,3,6],[2,4,8],[3,5,10],[3,6,12],[4,8,16],[6,12,24]"

PARTS: Mapping[str, tuple[Sweep, ...]] = {
    "table1": (
        Sweep(
            "published",
            "Table 1, symmetric layers, published recipe",
            (TABLE1, "model=resnet,imexnet,diffusion_reaction"),
            {
                "resnet": Published(2_691_648, 0.741),
                "imexnet": Published(2_701_440, 0.926),
            },
        ),
        Sweep(
            "double",
            "Table 1, layers of two kernels (eq. 2), published recipe",
            (TABLE1, "model=resnet,imexnet", "model/layer=double"),
        ),
        Sweep(
            "released",
            "Table 1, the step of the released code, published recipe",
            ("experiment=qtips_released",),
        ),
        Sweep(
            "unet", "Table 1, a U-Net of that size, published recipe", (*UNET, *THEIRS)
        ),
        Sweep(
            "recipe",
            "Table 1, symmetric layers, our recipe",
            (TABLE1, "model=resnet,imexnet", "model.alpha=100", FROM_LAPLACIAN, *OURS),
        ),
        Sweep(
            "recipe_reaction",
            "Table 1, diffusion-reaction, our recipe",
            (
                TABLE1,
                "model=diffusion_reaction",
                "model.alpha=10",
                FROM_LAPLACIAN,
                *OURS,
            ),
        ),
        Sweep(
            "recipe_unet", "Table 1, a U-Net of that size, our recipe", (*UNET, *OURS)
        ),
    ),
    "nyu": (
        Sweep(
            "kitchen",
            "Kitchens of NYU-Depth V2",
            ("experiment=nyu_kitchen", "model=resnet_depth,imexnet_depth"),
            {"resnet_depth": Published(506_928)},
        ),
    ),
    "smallest": (
        Sweep(
            "widths",
            "The smallest IMEXnet for 0.95 and 0.99",
            ("model=imexnet", WIDTHS),
        ),
    ),
}
"""Part of a reproduction -> its sweeps."""

TARGETS = (0.95, 0.99)
"""Mean IoU that the smallest network is looked for."""


def run_sweep(
    script: Path, words: Sequence[str], seeds: Iterable[int], folder: Path
) -> int:
    """Run or go on with a sweep of `script` in `folder`; its exit code.

    Finished jobs are not repeated; further seeds are added to those that are there.
    ConfigError if the folder was made with other words, StorageError if another process
    is working there.
    """
    _require_same_words(folder, words)
    command = [sys.executable, str(script), "-m", *words]
    command.append(f"seed=choice({','.join(map(str, seeds))})")
    command.append(f"hydra.sweep.dir={hydra_quoted(folder)}")
    # no number of the job: it would change with the seeds
    command.append("hydra.sweep.subdir=${hydra.job.override_dirname}")
    if "check=true" in words:
        return run_tied(command)
    make_private(folder, "out")
    with INTERRUPTS.raised():
        return run_tied(command)


def _require_same_words(folder: Path, words: Sequence[str]) -> None:
    if not sweep_file(folder).is_file():
        return
    _, before = sweep_words(folder)
    differing = {w for w in before if not w.startswith("seed=")} ^ set(words)
    if differing:
        raise ConfigError(
            f"{folder}: has runs that were made with other words "
            f"({', '.join(sorted(differing))}); choose another out=<folder>"
        )
