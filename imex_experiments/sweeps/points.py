"""The points of a sweep: overrides, configuration and folder of each job."""

import os
import pickle
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict

from imex_experiments.errors import ConfigError
from imex_experiments.runs.layout import CHOICES, CONFIG, HYDRA, OVERRIDES
from imex_experiments.sweeps.jobs import job_name

LONGEST_NAME = 255
"""Bytes of a file name that every file system in use takes."""


@dataclass(frozen=True)
class Point:
    """One job of a sweep: its overrides, those that are swept, and its configuration."""

    words: list[str]
    swept: list[str]
    config: DictConfig

    @property
    def name(self) -> str:
        """The name of the job for people."""
        return job_name(self.config.hydra.job)

    @property
    def folder(self) -> Path:
        """The folder of the job."""
        sweep = self.config.hydra.sweep
        return Path(sweep.dir, str(sweep.subdir))


def points_of(config: DictConfig) -> list[Point]:
    """Return every point of a multirun configuration, as Hydra's basic sweeper makes them.

    Hydra composes each choice of groups once. Values are then set by Hydra's own function.
    The name of a job has the overrides that are swept.
    """
    loader: Any = GlobalHydra.instance().config_loader()
    parser = OverridesParser.create(loader)
    overrides = parser.parse_overrides(list(config.hydra.overrides.task))
    swept = {o.get_key_element() for o in overrides if o.is_sweep_override()}
    (batch,) = BasicSweeper.split_arguments(overrides, None)
    chosen: dict[tuple[str, ...], bytes] = {}

    def compose(words: Sequence[str]) -> DictConfig:
        groups: list[Override] = []
        values: list[Override] = []
        for override in parser.parse_overrides(list(words)):
            known = loader.repository.group_exists(override.key_or_group)
            is_group = known and not isinstance(override.value(), dict)
            (groups if is_group else values).append(override)
        choice = tuple(override.input_line or "" for override in groups)
        if choice not in chosen:
            found = loader.load_sweep_config(config, list(choice))
            chosen[choice] = pickle.dumps(found)
        composed = pickle.loads(chosen[choice])  # a fifth of the time of a deep copy
        loader._apply_overrides_to_config(values, composed)
        OmegaConf.copy_cache(from_config=config, to_config=composed)
        return composed

    points = []
    for number, words in enumerate(batch):
        own = [word for word in words if word.partition("=")[0] in swept]
        point = Point(words, own, compose(words))
        job = point.config.hydra.job
        with open_dict(job):
            job.num, job.id = number, f"job_id_for_{number}"  # as Hydra's launchers do
            job.override_dirname = ",".join(sorted(own))
        points.append(point)
    return points


def name_folders_by_swept(config: DictConfig, points: Sequence[Point]) -> None:
    """Let Hydra name the folders of jobs by the overrides that are swept alone.

    ConfigError for a name that leads out of the sweep, as a path may, and for one that is
    too long for a file system.
    """
    words = [word for word in points[0].words if word not in points[0].swept]
    same = [word.partition("=")[0].lstrip("+~") for word in words]
    with open_dict(config):
        config.hydra.overrides.hydra.append(
            f"hydra.job.config.override_dirname.exclude_keys=[{','.join(same)}]"
        )
    for point in points:
        _check_folder(point)


def _check_folder(point: Point) -> None:
    sweep, folder = Path(point.config.hydra.sweep.dir), point.folder
    inside = os.path.relpath(folder, sweep)
    if inside.startswith(os.pardir):
        raise ConfigError(
            f"{','.join(point.swept)}: leads out of the folder of the sweep"
        )
    size = max(len(part.encode()) for part in Path(inside).parts)
    if size > LONGEST_NAME:
        raise ConfigError(
            f"hydra.sweep.subdir: job {point.config.hydra.job.num} would have a folder "
            f"with a name of {size} bytes, more than {LONGEST_NAME}; give "
            "'hydra.sweep.subdir=${hydra.job.num}'"
        )


def make_folders(points: Iterable[Point]) -> None:
    """Make the folders of jobs that have none, with the configurations of the jobs.

    A job that never begins is a row of results.csv like any other, with its settings.
    """
    for point in points:
        folder = point.folder
        if (folder / HYDRA).exists():
            continue
        (folder / HYDRA).mkdir(parents=True)
        own = [str(key) for key in point.config if key != "hydra"]
        choices = {"runtime": {"choices": point.config.hydra.runtime.choices}}
        OmegaConf.save({"hydra": choices}, folder / CHOICES)
        OmegaConf.save(OmegaConf.masked_copy(point.config, own), folder / CONFIG)
        OmegaConf.save(OmegaConf.create(point.words), folder / OVERRIDES)
