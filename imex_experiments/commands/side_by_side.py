"""Draw the predictions of several runs beside each other.

`python scripts/side_by_side.py runs=[<run>,<run>] out=side_by_side.png` draws test images of
the data of the first run (`images=[0,1,2,3]`), their targets, and one column of predictions
per run, for depth with its error. A column is headed by the model and its test score.
"""

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING
from PIL import Image

from imex_experiments.config.arguments import parse_arguments
from imex_experiments.config.build import refusing
from imex_experiments.errors import ConfigError
from imex_experiments.runs.load import load_data, load_run, read_metrics
from imex_experiments.runs.status import read_status
from imex_experiments.tasks import Task


@dataclass
class Arguments:
    runs: list[str] = MISSING
    out: str = MISSING
    images: list[int] = field(default_factory=lambda: [0, 1, 2, 3])
    allow: list[str] = field(default_factory=list)


def main() -> None:
    args = parse_arguments(Arguments)
    if not args.runs or not args.images:
        raise ConfigError(
            "runs=[<run>,...] and images=[<number>,...] must not be empty"
        )
    tasks: dict[str, Task] = {run: load_run(run, allow=args.allow) for run in args.runs}
    first = tasks[args.runs[0]]
    for run, task in tasks.items():
        if type(task) is not type(first):
            raise ConfigError(
                f"{run}: a run of {type(task).__name__}, not {type(first).__name__}"
            )
    data = load_data(args.runs[0], args.allow)
    images, targets = data.samples("test", 1 + max(map(abs, args.images)))
    if not all(0 <= index < len(images) for index in args.images):
        raise ConfigError(
            f"images={args.images}: the test split has 0 ... {len(images) - 1}"
        )
    images, targets = images[args.images], targets[args.images]
    metric = first.monitor.replace("val/", "test/")
    predictions = {
        f"{read_status(Path(run))['model']} {read_metrics(run)[metric]:.3f}": (
            task.predict(images)
        )
        for run, task in tasks.items()
    }
    with refusing("runs"):
        sheet = first.comparison(images, targets, predictions)
    Image.fromarray(sheet).save(args.out)
