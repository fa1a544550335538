"""Render rooms to a file in the layout of NYU-Depth V2.

`python scripts/make_nyu_sample.py out=<file.mat>`

The file has the layout of nyu_depth_v2_labeled.mat (MATLAB v7.3, 480 x 640 frames), which
`data=nyu_depth data.path=<file.mat>` reads. `frames=24` is the number of frames, `seed=0` the
seed of the rooms.
"""

from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from imex_experiments.config.arguments import parse_arguments
from imex_experiments.data.nyu.sample import make_nyu_sample
from imex_experiments.errors import ConfigError, DataError


@dataclass
class Arguments:
    out: str = MISSING
    frames: int = 24
    seed: int = 0


def main() -> None:
    args = parse_arguments(Arguments)
    if args.frames < 1 or args.seed < 0:
        raise ConfigError(
            f"frames must be >= 1 and seed >= 0, got {args.frames} and {args.seed}"
        )
    out = Path(args.out)
    if out.exists():
        raise DataError(f"{out}: exists; choose a new file")
    make_nyu_sample(out, args.frames, args.seed)
