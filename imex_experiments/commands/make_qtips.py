"""Write Q-tips as PNG folders: `python scripts/make_qtips.py out=<folder>`.

Writes `<out>/train`, `<out>/val` and `<out>/test`, each in the layout of the published data
(`images/`, `labels/`, `filenames.txt`), which `data=qtips data.root=<out>` reads. They are the
images that data=qtips generates with the same values.
"""

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING
from rich.progress import track

from imex_experiments.config.arguments import parse_arguments
from imex_experiments.config.build import refusing
from imex_experiments.data.folder.published import require_empty, write_image_folder
from imex_experiments.data.qtips import SPLITS, QtipsRecipe, make_qtips, split_seed


@dataclass
class Arguments:
    out: str = MISSING
    train: int = 1024
    val: int = 64
    test: int = 256
    seed: int = 0
    image_size: int = 64
    objects: int = 1
    centred: bool = True
    lengths: list[int] = field(default_factory=lambda: [32, 60])
    widths: list[int] = field(default_factory=lambda: [4, 8])


def main() -> None:
    args = parse_arguments(Arguments)
    out = Path(args.out)
    require_empty(out)
    with refusing("make_qtips"):
        recipe = QtipsRecipe(
            args.image_size, args.objects, args.centred, args.lengths, args.widths
        )
    for split in track(SPLITS, description="writing"):
        seed = split_seed(args.seed, split)
        write_image_folder(
            out / split, **make_qtips(getattr(args, split), recipe, seed)
        )
