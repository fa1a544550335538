"""Plan a sweep: check its points and print what they cost, before the first job starts."""

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
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
from imex_experiments.sweeps.points import Point


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
