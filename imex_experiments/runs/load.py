"""Load configuration, trained task, data, metrics and history of a run folder."""

import csv
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from omegaconf import DictConfig
from torch import Tensor

from imex_experiments.config.allow import allowed_by, check_packages
from imex_experiments.config.build import REBUILDING, build, check
from imex_experiments.config.keys import PARTS
from imex_experiments.config.parts import build_data, build_network
from imex_experiments.errors import CheckpointError, ConfigError
from imex_experiments.facts import DataModule, Facts, complete
from imex_experiments.files import read_regular
from imex_experiments.runs.checkpoint_io import read_checkpoint
from imex_experiments.runs.layout import CONFIG, HISTORY, LAST, METRICS
from imex_experiments.runs.plain import check_folder, read_json, read_yaml
from imex_experiments.runs.status import read_status
from imex_experiments.runs.strangers import own_config
from imex_experiments.runs.weights import no_more_weights
from imex_experiments.tasks import DepthTask, SegmentationTask, Task

METRIC = re.compile(r"\w[\w ./()+-]{0,199}")
MOST_HISTORY = 2**26
"""Allowed names of metrics, and most bytes of metrics.csv."""

Trained = TypeVar("Trained", bound=Task)


def load_config(run: str | Path, allow: Sequence[str] = ()) -> DictConfig:
    """Return the configuration of a run, as far as `strangers.own_config` allows.

    `allow` are packages of the user's own, whose classes the run may name. Raises
    CheckpointError if there is no configuration, or one that no run writes, and ConfigError
    for classes of other packages.
    """
    check_packages(allow)
    path = Path(run) / CONFIG
    if not path.is_file():
        raise CheckpointError(f"{run}: not a run folder, it has no {CONFIG}")
    check_folder(Path(run))
    config = own_config(read_yaml(path), Path(run), path, allow)
    return checked(config, "data", "model", "task")


def checked(config: DictConfig, *parts: str) -> DictConfig:
    """Return a configuration whose parts may be rebuilt. Raises ConfigError if not."""
    for key in parts:
        check(config.get(key), key, PARTS[key], allowed_by(config, REBUILDING))
    return config


def load_run(
    run: str | Path,
    checkpoint: str = "best",
    kind: type[Trained] = Task,  # type: ignore[assignment]
    allow: Sequence[str] = (),
) -> Trained:
    """Return the trained task of a run, in evaluation mode on the CPU.

    `checkpoint` is "best" (by the monitored validation metric) or "last"; `kind` is the
    class of task that the caller expects. Only classes of imex_experiments are built, and
    of the packages in `allow`; no pickled code is run. Raises CheckpointError if a file is
    missing, damaged, or of another network than the configuration, and ConfigError for
    another kind of task and for classes of other packages.
    """
    cfg = load_config(run, allow)
    path = Path(run) / "checkpoints" / f"{checkpoint}.ckpt"
    try:
        state = read_checkpoint(path)
    except CheckpointError as error:
        if path == Path(run) / LAST or not (Path(run) / LAST).is_file():
            raise
        raise CheckpointError(f"{error}; checkpoint=last is the run's end") from error
    with fitting(path, str(Path(run) / CONFIG)):
        facts = complete(state["hyper_parameters"]["facts"])
        task = rebuilt(cfg, facts, state["state_dict"])
    if not isinstance(task, kind):
        raise ConfigError(f"{run}: a run of {type(task).__name__}, not {kind.__name__}")
    return task


def rebuilt(cfg: DictConfig, facts: Facts, weights: Mapping[str, Tensor]) -> Task:
    """Build the task of a checked configuration with its weights, in evaluation mode.

    No network is built that has many more weights than are given.
    """
    channels = facts["in_channels"], facts["out_channels"]
    with no_more_weights(weights):
        build_network(cfg, *channels, REBUILDING)
    network = build_network(cfg, *channels, REBUILDING)
    allowed = allowed_by(cfg, REBUILDING)
    task: Task = build(cfg.task, "task", allowed, network=network, facts=facts)
    task.load_state_dict(weights)
    return task.eval()


@contextmanager
def fitting(path: Path, configuration: str) -> Iterator[None]:
    """Turn errors of building a task in the body into a CheckpointError."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path}: does not fit {configuration} ({reason})"
        ) from error


def load_dense(
    run: str | Path, checkpoint: str = "best", allow: Sequence[str] = ()
) -> Task:
    """Load a task of segmentation or depth. Raises ConfigError for another task."""
    task: Task = load_run(run, checkpoint, allow=allow)
    if not isinstance(task, SegmentationTask | DepthTask):
        raise ConfigError(
            f"{run}: a run of {type(task).__name__}, not of segmentation or depth"
        )
    return task


def load_data(run: str | Path, allow: Sequence[str] = ()) -> DataModule:
    """Return the data module of a run, after its `setup`."""
    data = build_data(load_config(run, allow), REBUILDING)
    data.prepare_data()
    data.setup()
    return data


def named(runs: Sequence[str], names: Sequence[str]) -> list[tuple[str, str]]:
    """Return pairs of a run and its name, which is by default its model.

    Seeds of one network may share a name. A repeated pair is listed once. Raises
    ConfigError unless there is one name per run, or none.
    """
    if names and len(names) != len(runs):
        raise ConfigError(
            f"names: give one per run, {len(runs)}, or none; got {len(names)}"
        )
    models = [str(read_status(Path(run)).get("model", run)) for run in runs]
    return list(dict.fromkeys(zip(runs, names or models, strict=True)))


def read_metrics(run: str | Path) -> dict[str, float]:
    """Return metrics.json of a finished run, with NaN in place of null.

    Raises CheckpointError if there is none, and ValueError unless it holds numbers.
    """
    path = Path(run) / METRICS
    if not path.is_file():
        raise CheckpointError(f"{run}: not a finished run, it has no {METRICS}")
    metrics = read_json(path)
    numbers = all(isinstance(value, int | float | None) for value in metrics.values())
    if not (numbers and all(map(METRIC.fullmatch, metrics))):
        raise ValueError("not an object of numbers")
    return {
        name: math.nan if value is None else value for name, value in metrics.items()
    }


def read_history(run: str | Path) -> list[dict[str, str]]:
    """Return the rows of metrics.csv, without a last row that was cut off.

    Raises CheckpointError if there are none, or if they hold anything but numbers.
    """
    path = Path(run) / HISTORY
    rows: list[dict[str, str]] = []
    if path.is_file():
        try:
            text = read_regular(path, MOST_HISTORY).decode()
            lines = [line for line in text.splitlines(True) if line.endswith("\n")]
            rows = list(csv.DictReader(lines))
            for value in (value for row in rows for value in row.values()):
                float(value or "nan")
        except (OSError, ValueError, TypeError, csv.Error) as error:
            raise CheckpointError(
                f"{path}: not a table of numbers ({error})"
            ) from error
    if not rows:
        raise CheckpointError(f"{run}: not a run that finished an epoch, no {HISTORY}")
    return rows
