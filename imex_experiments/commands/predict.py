"""Predict labels, depths or classes for a folder of images.

`python scripts/predict.py run=<run> images=<folder> out=<folder>`

`pretrained=imexnet-qtips` in place of `run` takes a trained network that comes with this
package, or a file of one.

For every image `<name>.png`, .jpg, .tif, .bmp, .gif, .webp or .npy, grey or colour and with
the bits of the training images, it writes

- for segmentation `labels/<name>.png` (grey value = class) and `overlays/<name>.png` (the
  labels over the image);
- for depth `depths/<name>.png` (16 bit, millimetres) and `colours/<name>.png` (with a colour
  bar, and one scale for the folder);
- for classification `classes.csv`.

Images are resized as the training images were, and predictions back to the size of the image.
With `tile=512` large images are predicted in overlapping tiles of 512 x 512 pixels, which
takes less memory. The output folder must be new or empty. A file that is no such image, or
has a size that the network refuses, is skipped and named at the end. A run with classes of
your own needs `allow=[<package>]` again.
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
from imex_experiments.data.folder.pictures import KNOWN, SUFFIXES, read_image
from imex_experiments.data.folder.published import require_empty
from imex_experiments.data.folder.sizes import Size, resized_image, resized_target
from imex_experiments.errors import ConfigError, DataError
from imex_experiments.plots.segmentation import overlay
from imex_experiments.plots.sheet import ColourBar, draw_sheet
from imex_experiments.runs.load import load_run
from imex_experiments.runs.pretrained import load_pretrained, pretrained_names
from imex_experiments.tasks import ClassificationTask, SegmentationTask, Task
from imex_experiments.tasks.metrics import has_background
from imex_experiments.tasks.whole import SMALLEST_TILE

Arrays = dict[str, np.ndarray]


@dataclass
class Arguments:
    run: str | None = None
    pretrained: str | None = None
    images: str = MISSING
    out: str = MISSING
    checkpoint: str = "best"
    tile: int | None = None
    allow: list[str] = field(default_factory=list)


def main() -> None:
    args = parse_arguments(Arguments)
    if args.tile is not None and args.tile < SMALLEST_TILE:
        raise ConfigError(
            f"tile={args.tile}: expected null or at least {SMALLEST_TILE}"
        )
    folder, out = Path(args.images), Path(args.out)
    if not folder.is_dir():
        raise DataError(f"images={folder}: no such folder")
    files = [p for p in folder.iterdir() if p.is_file() and p.name[0] != "."]
    if not files:
        raise DataError(f"images={folder}: no images in it")
    require_empty(out)
    task = chosen(args)
    if "range" in task.facts:
        trained = args.run or args.pretrained
        raise ConfigError(f"run={trained}: it was trained on points, not on images")
    # All images are read and predicted before any file is written.
    images: Arrays = {}
    predictions: Arrays = {}
    skipped: list[str] = []
    for path in track(sorted(files)):
        try:
            image, prediction = predict(task, path, args.tile)
            if path.stem in {Path(name).stem for name in images}:
                raise DataError(f"{path}: there is another {path.stem}; rename it")
        except DataError as error:
            skipped.append(str(error))
        else:
            images[path.name], predictions[path.name] = image, prediction
    if not predictions:
        raise DataError(f"images={folder}: nothing to predict for; {skipped[0]}")
    write(task, images, predictions, out)
    for reason in skipped:
        print(f"warning: skipped {reason}", file=sys.stderr)


def chosen(args: Arguments) -> Task:
    """Return the trained task that the arguments name."""
    if args.pretrained is not None and args.run is None:
        return load_pretrained(args.pretrained)
    if args.run is None or args.pretrained is not None:
        raise ConfigError(
            "give either run=<run> or pretrained=<name>; there are "
            f"{', '.join(pretrained_names())}"
        )
    return load_run(args.run, args.checkpoint, allow=args.allow)


def predict(task: Task, path: Path, tile: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture of an image and its prediction.

    Raises DataError for an unsuitable file.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path}: not of {KNOWN}")
    image = torch.from_numpy(read_image(path, task.facts["in_channels"]))
    height, width = image.shape[-2:]
    seen = resized_image(image, _size(task, height, width))
    try:
        prediction = task.predict(seen[None], tile)[0]
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
    if prediction.ndim > 1:  # of each pixel
        prediction = resized_target(prediction, (height, width))
    return task.pictures(image[None])[0], prediction.numpy()


def _size(task: Task, height: int, width: int) -> Size:
    """Return the size at which a task sees an image of a height and width."""
    height, width = task.facts.get("resize", [height, width])
    return height, width


def write(task: Task, images: Arrays, predictions: Arrays, out: Path) -> None:
    """Write the files for the kind of task to the output folder."""
    if isinstance(task, SegmentationTask):
        save(out / "labels", predictions)
        background = has_background(task.classes)
        overlays = {
            name: overlay(images[name], predictions[name], background=background)
            for name in images
        }
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
            n: (1000 * d).round().clip(0, 65535).astype(np.uint16)
            for n, d in depths.items()
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
        Image.fromarray(array).save(folder / f"{Path(name).stem}.png")
