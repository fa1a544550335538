"""The launchers of this package. Hydra looks for launchers in this namespace alone.

Hydra imports this file at the start of every command, --help included, so what a launcher does
is imported when it does it.
"""

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class _Launcher(Launcher):
    """What Hydra gives to a launcher before it launches."""

    def setup(
        self,
        *,
        hydra_context: HydraContext,
        task_function: TaskFunction,
        config: DictConfig,
    ) -> None:
        self.context, self.body, self.config = hydra_context, task_function, config


class ProcessesLauncher(_Launcher):
    """Run the jobs of a sweep on this machine, `n_jobs` at a time."""

    def __init__(self, n_jobs: int = 1, fork: bool = True) -> None:
        self.n_jobs, self.fork = n_jobs, fork

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        from imex_experiments.sweeps.processes import launch

        body: Any = self.body
        points = dict(enumerate(job_overrides, initial_job_idx))
        return launch(self.context, body, self.config, points, self.n_jobs, self.fork)


class SlurmLauncher(_Launcher):
    """Run the jobs of a sweep as one array of SLURM; the keys are in conf/hydra/launcher."""

    def __init__(
        self,
        name: str,
        partition: str | None,
        account: str | None,
        qos: str | None,
        constraint: str | None,
        exclude: str | None,
        timeout_min: int,
        signal_delay_s: int,
        max_num_timeout: int,
        cpus_per_task: int | None,
        gpus_per_node: int | None,
        gres: str | None,
        mem_gb: float | None,
        array_parallelism: int,
        setup: list[str] | None,
        additional_parameters: dict[str, Any],
    ) -> None:
        """State the types of the settings; the launcher reads them in the configuration."""

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run the jobs without a result; return nothing, since their folders have it."""
        from imex_experiments.sweeps.slurm.launch import launch

        launch(self.config)
        return []
