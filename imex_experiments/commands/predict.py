"""Predict labels, depths or classes for a folder of PNGs.

`python scripts/predict.py run=<run> images=<folder> out=<folder>`

For every 8-bit `<name>.png`, grey or colour as the training images, it writes

- for segmentation `labels/<name>.png` (grey value = class) and `overlays/<name>.png` (the
  labels over the image);
- for depth `depths/<name>.png` (16 bit, millimetres) and `colours/<name>.png` (with a colour
  bar, and one scale for the folder);
- for classification `classes.csv`.

The output folder must be new or empty. A file that is no such PNG, or has a size that the
network refuses, is skipped and named at the end. A run with classes of your own needs
`allow=[<package>]` again.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from omegaconf import MISSING
from PIL import Image
from rich.progress import track

from imex_experiments.config.arguments import parse_arguments
from imex_experiments.data.image_folder import read_image, require_empty
from imex_experiments.errors import ConfigError, DataError
from imex_experiments.plots.segmentation import overlay
from imex_experiments.plots.sheet import ColourBar, draw_sheet
from imex_experiments.runs.load import load_run
from imex_experiments.tasks import ClassificationTask, SegmentationTask, Task

Arrays = dict[str, np.ndarray]


@dataclass
class Arguments:
    run: str = MISSING
    images: str = MISSING
    out: str = MISSING
    checkpoint: str = "best"
    allow: list[str] = field(default_factory=list)


def main() -> None:
    args = parse_arguments(Arguments)
    folder, out = Path(args.images), Path(args.out)
    if not folder.is_dir():
        raise DataError(f"images={folder}: no such folder")
    files = [p for p in folder.iterdir() if p.is_file() and p.name[0] != "."]
    if not files:
        raise DataError(f"images={folder}: no *.png in it")
    require_empty(out)
    task: Task = load_run(args.run, args.checkpoint, allow=args.allow)
    facts = task.facts
    if facts["dtype"] != "uint8":
        points = "range" in facts
        kind = "points, not on images" if points else "floats, not on 8-bit images"
        raise ConfigError(f"run={args.run}: it was trained on {kind}")
    # All images are read and predicted before any file is written.
    images: Arrays = {}
    predictions: Arrays = {}
    skipped: list[str] = []
    for path in track(sorted(files)):
        try:
            image, prediction = predict(task, path, facts["in_channels"])
        except DataError as error:
            skipped.append(str(error))
        else:
            images[path.name], predictions[path.name] = image, prediction
    if not predictions:
        raise DataError(f"images={folder}: nothing to predict for; {skipped[0]}")
    write(task, images, predictions, out)
    for reason in skipped:
        print(f"warning: skipped {reason}", file=sys.stderr)


def predict(task: Task, path: Path, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an image and its prediction. Raises DataError for an unsuitable file."""
    if path.suffix.lower() != ".png":
        raise DataError(f"{path}: not a PNG")
    image = read_image(path, channels)
    try:
        return image, task.predict(torch.from_numpy(image.copy())[None])[0].numpy()
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


def write(task: Task, images: Arrays, predictions: Arrays, out: Path) -> None:
    """Write the files for the kind of task to the output folder."""
    if isinstance(task, SegmentationTask):
        save(out / "labels", predictions)
        overlays = {name: overlay(images[name], predictions[name]) for name in images}
        save(out / "overlays", overlays)
    elif isinstance(task, ClassificationTask):
        out.mkdir(parents=True)
        classes = task.facts["classes"]
        lines = [f"{n},{classes[int(k)]}\n" for n, k in predictions.items()]
        (out / "classes.csv").write_text(
            "".join(["image,class\n", *lines]), encoding="utf-8"
        )
    else:
        depths = {name: depth[0] for name, depth in predictions.items()}
        millimetres = {
            n: (1000 * d).round().astype(np.uint16) for n, d in depths.items()
        }
        save(out / "depths", millimetres)
        save(out / "colours", coloured(depths))


def coloured(depths: Arrays) -> Arrays:
    furthest = float(np.ceil(max(depth.max() for depth in depths.values())))
    scale = ColourBar("depth", 0, furthest, "viridis", "m")
    return {
        name: draw_sheet([[scale.colours(depth)]], [name], [scale])
        for name, depth in depths.items()
    }


def save(folder: Path, arrays: Arrays) -> None:
    folder.mkdir(parents=True)
    for name, array in arrays.items():
        Image.fromarray(array).save(folder / name)
