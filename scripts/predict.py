"""Predict for a folder of PNGs.

`python scripts/predict.py run=<run> images=<folder> out=<folder>`

For every 8-bit `<name>.png`, grey or colour as the network was trained, it writes

- for segmentation `labels/<name>.png` (grey value = class) and `overlays/<name>.png` (the
  labels over the image);
- for depth `depths/<name>.png` (16 bit, millimetres) and `colours/<name>.png` (one scale for
  the folder, with its bar);
- for classification `classes.csv`.

The output folder must be new or empty.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from omegaconf import MISSING
from PIL import Image
from rich.progress import track

from imex_experiments.data.errors import DataError
from imex_experiments.data.image_folder import read_image, require_empty
from imex_experiments.plots.segmentation import overlay
from imex_experiments.plots.sheet import ColourBar, draw_sheet
from imex_experiments.runs.build import refusing
from imex_experiments.runs.command import parse_arguments, run_command
from imex_experiments.runs.errors import ConfigError
from imex_experiments.runs.load_run import load_run
from imex_experiments.tasks import ClassificationTask, SegmentationTask, Task

Arrays = dict[str, np.ndarray]


@dataclass
class Arguments:
    run: str = MISSING
    images: str = MISSING
    out: str = MISSING
    checkpoint: str = "best"


def main() -> None:
    args = parse_arguments(Arguments)
    folder, out = Path(args.images), Path(args.out)
    paths = sorted(folder.glob("*.png"))
    if not paths:
        why = "no *.png in it" if folder.is_dir() else "no such folder"
        raise DataError(f"images={folder}: {why}")
    require_empty(out)
    task: Task = load_run(args.run, args.checkpoint)
    facts = task.hparams["facts"]
    if "range" in facts:
        raise ConfigError(f"run={args.run}: it learned from points, not from images")
    channels = facts["in_channels"]
    # All images are read and predicted before any file is written.
    images = {path.name: read_image(path, channels) for path in paths}
    predictions = {name: predict(task, image) for name, image in track(images.items())}
    if isinstance(task, SegmentationTask):
        save(out / "labels", predictions)
        overlays = {name: overlay(images[name], predictions[name]) for name in images}
        save(out / "overlays", overlays)
    elif isinstance(task, ClassificationTask):
        out.mkdir(parents=True)
        lines = [f"{n},{facts['classes'][int(k)]}\n" for n, k in predictions.items()]
        (out / "classes.csv").write_text("".join(["image,class\n", *lines]))
    else:
        depths = {name: depth[0] for name, depth in predictions.items()}
        millimetres = {
            n: (1000 * d).round().astype(np.uint16) for n, d in depths.items()
        }
        save(out / "depths", millimetres)
        save(out / "colours", coloured(depths))


def predict(task: Task, image: np.ndarray) -> np.ndarray:
    with refusing("model"):
        return task.predict(torch.from_numpy(image.copy())[None])[0].numpy()


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


if __name__ == "__main__":
    run_command(main)
