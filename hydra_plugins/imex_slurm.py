"""The launcher of `hydra/launcher=slurm`. Hydra looks for launchers in this namespace alone.

Hydra imports this file in every process, so the work is imported when it is done.
"""

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class SlurmLauncher(Launcher):
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

    def setup(
        self,
        *,
        hydra_context: HydraContext,
        task_function: TaskFunction,
        config: DictConfig,
    ) -> None:
        self.config = config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run the jobs without a result; return nothing, since their folders have it."""
        from imex_experiments.sweeps.slurm.launch import launch

        launch(self.config)
        return []
