"""Launchers: how many jobs they run at once, and how a sweep is started."""

import os
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from imex_experiments.errors import ConfigError
from imex_experiments.files import sync_folder, write_text
from imex_experiments.process.interrupts import INTERRUPTS
from imex_experiments.runs.layout import SWEEP
from imex_experiments.sweeps.slurm import room

SLURM = "hydra_plugins.imex_launchers.SlurmLauncher"
"""The launcher of this package; that of submitit has the same name in another module."""


def jobs_at_once(launcher: DictConfig) -> int | None:
    """Return how many jobs a launcher runs at a time; None where a cluster decides.

    ConfigError if that is no number, or if it would wait for devices that are not there.
    """
    kind = str(launcher._target_).rpartition(".")[2]
    if kind == "BasicLauncher":
        return 1
    if kind == "ProcessesLauncher":
        if launcher.n_jobs < 1:
            raise ConfigError(
                f"hydra.launcher.n_jobs={launcher.n_jobs}: expected an integer from 1, the "
                "number of jobs that run at a time"
            )
        return launcher.n_jobs
    if launcher._target_ == SLURM:
        return room.jobs_at_once(launcher)
    if kind != "RayLauncher" or launcher.ray.init.get("address"):
        return None
    here = {"num_gpus": torch.cuda.device_count(), "num_cpus": os.cpu_count()}
    told = {k: n for k, n in launcher.ray.init.items() if n is not None}
    there = {key: told.get(key, number) for key, number in here.items()}
    wanted = {key: launcher.ray.remote.get(key, 0) for key in there}
    for key, number in wanted.items():
        if number > there[key]:
            raise ConfigError(
                f"hydra.launcher.ray.remote.{key}={number}: a job asks for more than the "
                f"{there[key]} that are here; hydra/launcher=processes needs no GPU"
            )
    return min(int(there[key] / n) for key, n in wanted.items() if n > 0)


def write_launch(sweep: Path, config: DictConfig) -> None:
    """Write how a sweep is started, which `results.sources.sweep_words` reads.

    Hydra does so too, but in place: a kill in its midst would lose a sweep that is resumed.
    """
    overrides = OmegaConf.create({"hydra": {"overrides": config.hydra.overrides}})
    write_text(sweep / SWEEP, OmegaConf.to_yaml(overrides))
    sync_folder(sweep)


OBJECT_STORE = 75 * 2**20
"""Bytes of Ray's object store: jobs share their overrides and scores alone."""


def start_launcher(launcher: DictConfig) -> None:
    """Start Ray, if it is the launcher, so that signals end a sweep in order.

    Ray's C++ aborts on SIGTERM, so our handlers are installed after it. Ray would also kill
    the jobs of a worker that ends; they end by themselves (see `end_with_parent`).
    """
    if not _is_ray(launcher):
        return
    import ray  # an optional dependency, and slow

    os.environ.setdefault("RAY_kill_child_processes_on_worker_exit", "0")
    init: Any = OmegaConf.to_container(launcher.ray.init, resolve=True)
    if init.get("address") is None:
        init.setdefault("object_store_memory", OBJECT_STORE)  # not to join a cluster
    ray.init(**init)
    INTERRUPTS.listen()


def end_launcher(launcher: DictConfig) -> None:
    """End the jobs that Ray, if it is the launcher, still runs; others end theirs."""
    if _is_ray(launcher):
        import ray

        ray.shutdown()


def _is_ray(launcher: DictConfig) -> bool:
    return str(launcher._target_).endswith(".RayLauncher")
