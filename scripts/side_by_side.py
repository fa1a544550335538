"""The labels of several runs beside each other.

`python scripts/side_by_side.py runs=[<run>,<run>] out=side_by_side.png` takes test
images of the first run's data (`images=[0,1,2,3]`) and draws image | truth | one column per
run, each headed by its model and test mIoU.
"""

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING
from PIL import Image

from imex_experiments.plots.segmentation import comparison_sheet
from imex_experiments.runs.build import build
from imex_experiments.runs.command import parse_arguments, run_command
from imex_experiments.runs.errors import ConfigError
from imex_experiments.runs.load_run import load_config, load_run, read_metrics
from imex_experiments.runs.record import read_status
from imex_experiments.tasks import SegmentationTask


@dataclass
class Arguments:
    runs: list[str] = MISSING
    out: str = MISSING
    images: list[int] = field(default_factory=lambda: [0, 1, 2, 3])


def main() -> None:
    args = parse_arguments(Arguments)
    if not args.runs or not args.images:
        raise ConfigError(
            "runs=[<run>,...] and images=[<number>,...] must not be empty"
        )
    tasks = {run: load_run(run, kind=SegmentationTask) for run in args.runs}
    data = build(load_config(args.runs[0]).data, "data")
    data.setup()
    test = data.splits["test"]
    if not all(0 <= index < len(test) for index in args.images):
        raise ConfigError(
            f"images={args.images}: the test split has 0 ... {len(test) - 1}"
        )
    images, labels = test[args.images]
    predictions = {}
    for run, task in tasks.items():
        title = (
            f"{read_status(Path(run))['model']} {read_metrics(run)['test/miou']:.3f}"
        )
        predictions[title] = task.predict(images).numpy()
    sheet = comparison_sheet(images.numpy(), labels.numpy(), predictions, task.classes)
    Image.fromarray(sheet).save(args.out)


if __name__ == "__main__":
    run_command(main)
