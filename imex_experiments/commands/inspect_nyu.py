"""Summarise an NYU-Depth V2 file: `python scripts/inspect_nyu.py path=<file.mat>`.

Prints data sets, types of scenes with their numbers of frames, range of depths, share of
invalid pixels and MD5, and draws `frames=8` of its frames, images above depths, to
`out=contact_sheet.png`. With `depth=rawDepths` it reads the depths before in-painting.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from omegaconf import MISSING
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from imex_experiments.config.arguments import parse_arguments
from imex_experiments.data.nyu.data_module import DEPTHS
from imex_experiments.data.nyu.file import (
    PUBLISHED_MD5,
    NyuContents,
    file_md5,
    read_contents,
    read_frames,
)
from imex_experiments.errors import ConfigError, StorageError
from imex_experiments.plots.contact_sheet import contact_sheet


@dataclass
class Arguments:
    path: str = MISSING
    out: str = "contact_sheet.png"
    frames: int = 8
    depth: str = "depths"


def main() -> None:
    args = parse_arguments(Arguments)
    if args.depth not in DEPTHS:
        raise ConfigError(f"depth={args.depth}: known: {', '.join(DEPTHS)}")
    if args.frames < 1:
        raise ConfigError(f"frames={args.frames}: must be >= 1")
    path, console = Path(args.path), Console()
    contents = read_contents(path, args.depth)
    console.print(_datasets(contents), _scenes(contents))
    _survey(path, args, contents, console)
    md5 = file_md5(path)
    known = "the published file" if md5 == PUBLISHED_MD5 else "not the published file"
    console.print(f"MD5 {md5}: {known}", highlight=False)
    console.print(f"drawn to {args.out}", highlight=False)


def _datasets(contents: NyuContents) -> Table:
    table = Table("data set", "shape", "type", title=f"MATLAB {contents.version}")
    for row in contents.datasets:
        table.add_row(*row)
    return table


def _scenes(contents: NyuContents) -> Table:
    table = Table("type of scene", "scenes", "frames", title="scenes")
    kinds = contents.scene_types or ["(unknown)"] * len(contents.scenes)
    scenes = Counter(kind for kind, _ in set(zip(kinds, contents.scenes, strict=True)))
    for kind, frames in sorted(Counter(kinds).items()):
        table.add_row(kind, str(scenes[kind]), str(frames))
    table.add_row("all", str(scenes.total()), str(len(kinds)))
    return table


def _survey(
    path: Path, args: Arguments, contents: NyuContents, console: Console
) -> None:
    """Print range and invalid share of all depths, and draw evenly spaced frames."""
    number = len(contents.scenes)
    at = np.linspace(0, number - 1, min(args.frames, number)).round().astype(int)
    drawn = {int(index): (np.empty(0), np.empty(0)) for index in at}
    nearest, farthest, invalid, pixels = np.inf, 0.0, 0, 0
    found = read_frames(path, range(number), args.depth)
    for index, (image, depth) in enumerate(
        track(found, "reading", total=number, console=console)
    ):
        valid = depth[np.isfinite(depth) & (depth > 0)]
        nearest = min(nearest, valid.min(initial=np.inf))
        farthest = max(farthest, valid.max(initial=0))
        invalid += depth.size - valid.size
        pixels += depth.size
        if index in drawn:
            drawn[index] = (image, depth)
    share = f"{100 * invalid / pixels:.2f} % of the pixels invalid"
    extent = f"{nearest:.3f} ... {farthest:.3f} m" if farthest else "none valid"
    console.print(f"{args.depth}: {extent}, {share}", highlight=False)
    images, depths = zip(*drawn.values(), strict=True)
    titles = [f"{index}: {contents.scenes[index]}" for index in drawn]
    try:
        Image.fromarray(contact_sheet(images, depths, titles)).save(args.out)
    except (OSError, ValueError) as error:
        raise StorageError(f"{args.out}: cannot be written ({error})") from error
