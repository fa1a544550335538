"""Plan a sweep: check its points and print what they cost, before the first job starts."""

import os
import pickle
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict
from rich.console import Console
from rich.table import Table

from imex_experiments.config.preflight import check_seed, preflight
from imex_experiments.errors import ConfigError
from imex_experiments.networks.cost import count_flops
from imex_experiments.networks.structure import structure
from imex_experiments.process.forks import apart, can_fork
from imex_experiments.runs.status import status_if_readable
from imex_experiments.sweeps.estimate import estimate
from imex_experiments.sweeps.launch import jobs_at_once

LONGEST_NAME = 255
"""Bytes of a file name that every file system in use takes."""


@dataclass(frozen=True)
class Point:
    """One job of a sweep: its overrides, those that are swept, and its configuration."""

    words: list[str]
    swept: list[str]
    config: DictConfig


def points_of(config: DictConfig) -> list[Point]:
    """Return every point of a multirun configuration, as Hydra's basic sweeper makes them.

    Hydra composes each choice of groups once. Values are then set by Hydra's own function.
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

    return [
        Point(
            words,
            [word for word in words if word.partition("=")[0] in swept],
            compose(words),
        )
        for words in batch
    ]


def name_folders_by_swept(config: DictConfig, points: Sequence[Point]) -> None:
    """Name the folders of jobs by the overrides that are swept.

    ConfigError for a name that leads out of the sweep, as a path may, and for one that is
    too long for a file system.
    """
    for point in points:
        name = ",".join(sorted(point.swept))
        if os.path.normpath(f"0_{name}").startswith(os.pardir):
            raise ConfigError(f"{name}: leads out of the folder of the sweep")
    words = [word for word in points[0].words if word not in points[0].swept]
    same = [word.partition("=")[0].lstrip("+~") for word in words]
    with open_dict(config):
        config.hydra.overrides.hydra.append(
            f"hydra.job.config.override_dirname.exclude_keys=[{','.join(same)}]"
        )
    _check_names(config, points)


def _check_names(config: DictConfig, points: Sequence[Point]) -> None:
    plain: Any = OmegaConf.to_container(config.hydra.sweep, resolve=False)
    if "override_dirname" not in plain["subdir"]:
        return
    for number, point in enumerate(points):
        size = len(f"{number}_{','.join(point.swept)}".encode())
        if size > LONGEST_NAME:
            raise ConfigError(
                f"hydra.sweep.subdir: job {number} would have a folder with a name of "
                f"{size} bytes, more than {LONGEST_NAME}; give "
                "'hydra.sweep.subdir=${hydra.job.num}'"
            )


def check_points(points: Sequence[Point]) -> list[Point]:
    """Check the points of a sweep; return them by the FLOPs of their networks, most first.

    Of points that differ in the seed alone the first one is returned: their networks are
    the same. ConfigError, which names the point, for the first that cannot work.
    """
    kinds: dict[str, Point] = {}
    flops: dict[str, int] = {}
    counted: dict[Hashable, int] = {}
    for point in points:
        plain: Any = OmegaConf.to_container(point.config)
        kind = repr({**plain, "hydra": None, "seed": type(plain["seed"])})
        try:
            if kind in kinds:
                check_seed(point.config.seed)
                continue
            kinds[kind] = point
            parts = preflight(point.config)
            _refuse_several_devices(point.config)
        except Exception as error:
            if code := getattr(error, "exit_code", None):
                assert code == ConfigError.exit_code
                name = " ".join(point.swept)
                raise ConfigError(f"point {name}: {error}") from error
            raise
        network, shape = parts.network, parts.data.image_shape
        key = structure(network), shape
        if key not in counted:
            counted[key] = count_flops(network, shape)["total"]
        flops[kind] = counted[key]
    return [kinds[kind] for kind in sorted(kinds, key=flops.__getitem__, reverse=True)]


def checked(points: Sequence[Point]) -> Point:
    """Check the points of a sweep; return the one whose network has most FLOPs.

    It is done in a fork, which leaves this process as one that can be forked again.
    ConfigError as `check_points` raises it.
    """
    return apart(_largest, points) if can_fork() else _largest(points)


def _largest(points: Sequence[Point]) -> Point:
    return check_points(points)[0]


def show_plan(
    config: DictConfig, points: Sequence[Point], largest: Point, new: bool
) -> None:
    """Print how many jobs a sweep has, how many at once, and what the largest costs.

    A sweep that is not new shows how many jobs are finished instead of the cost.
    """
    folder = Path(config.hydra.sweep.dir)
    at_once = jobs_at_once(config.hydra.launcher)
    table = Table(title="the sweep", show_header=False)
    table.add_row("folder", str(folder))
    table.add_row("jobs", str(len(points)))
    table.add_row("at once", str(at_once or "as the cluster has room"))
    if not new:
        states = [
            status_if_readable(job.parent).get("state")
            for job in folder.glob("*/.hydra")
        ]
        table.add_row("finished", str(states.count("finished")))
    else:
        cost = estimate(largest.config)
        table.add_row("largest", " ".join(largest.swept) or "all alike")
        table.add_row("its training", f"about {_duration(cost.seconds)}")
        table.add_row("its memory", f"{cost.memory / 2**30:.1f} GiB")
        if at_once:
            seconds = -(-len(points) // at_once) * cost.seconds
            table.add_row("all jobs", f"at most about {_duration(seconds)}")
    Console().print(table)


def _refuse_several_devices(cfg: DictConfig) -> None:
    devices = cfg.trainer.get("devices", 1)
    if devices != 1 or cfg.trainer.get("num_nodes", 1) != 1:
        raise ConfigError(
            f"trainer.devices={devices}: a job of a sweep trains on one device; "
            "hydra.launcher.n_jobs=<number of GPUs> gives each job a GPU of its own, and "
            "trainer=ddp without -m trains one network on several"
        )


def _duration(seconds: float) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
