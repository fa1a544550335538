"""Print the help or the configuration of a training: `train.py --help`, `train.py --cfg job`.

Hydra does that alone. A training imports torch and Lightning, which takes seconds.
"""

import sys
from collections.abc import Iterable

import hydra
from omegaconf import DictConfig

from imex_experiments.config.arguments import keep_hooks, options_first, rewritten
from imex_experiments.installed import CONF

PRINTS = {
    *("--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i"),
    *("--shell-completion", "-sc"),
}
"""Options of Hydra with which it prints something and runs nothing."""


def only_prints(arguments: Iterable[str]) -> bool:
    """Return True for arguments with which Hydra prints something and runs nothing.

    The configuration of a run that is resumed is read from its folder, which takes more.
    """
    given = {argument.partition("=")[0] for argument in arguments}
    return bool(given & PRINTS) and not given & {"resume", "sweep.resume"}


def main() -> None:
    sys.argv[1:] = options_first(rewritten(sys.argv[1:]))
    keep_hooks(sys.argv[1:])
    hydra.main(str(CONF), "train", version_base="1.3")(_nothing)()


def _nothing(cfg: DictConfig) -> None:
    """Stand for the training, which Hydra does not call."""
