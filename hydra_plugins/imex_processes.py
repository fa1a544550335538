"""Name the launcher `processes` to Hydra, which takes launchers of this package alone."""

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class ProcessesLauncher(Launcher):
    """Run the jobs of a sweep on this machine, `n_jobs` at a time."""

    def __init__(self, n_jobs: int = 1, fork: bool = True) -> None:
        self.n_jobs, self.fork = n_jobs, fork

    def setup(
        self,
        *,
        hydra_context: HydraContext,
        task_function: TaskFunction,
        config: DictConfig,
    ) -> None:
        self.context, self.body, self.config = hydra_context, task_function, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        # Hydra loads every plugin at the start of every command, --help included.
        from imex_experiments.sweeps.processes import launch

        body: Any = self.body
        points = dict(enumerate(job_overrides, initial_job_idx))
        return launch(self.context, body, self.config, points, self.n_jobs, self.fork)
