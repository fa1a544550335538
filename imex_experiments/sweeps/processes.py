"""Run the jobs of a sweep on this machine, some at a time: the launcher `processes`.

Each job is a fork of the launcher, which has imported all that a job needs. The launcher
itself computes nothing and has one thread, so that a fork is as good as a new process.
"""

import os
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from imex_experiments.errors import StorageError
from imex_experiments.process.forks import apart, can_fork
from imex_experiments.process.tied import THREADS, Child, Children
from imex_experiments.runs.layout import CONSOLE, OVERRIDES
from imex_experiments.runs.status import write_command
from imex_experiments.sweeps.jobs import Job, begin, end, failure, log

PAUSE = 0.05
"""Seconds between two looks at the jobs that run."""

DEVICES = "CUDA_VISIBLE_DEVICES"
"""Environment variable of the GPUs that a process sees."""


def launch(
    context: HydraContext,
    body: TaskFunction,
    config: DictConfig,
    points: Mapping[int, Sequence[str]],
    n_jobs: int,
    fork: bool,
) -> list[JobReturn]:
    """Run the points of a sweep, by number, and return what Hydra records of each.

    The children end in order when this process ends, by an exception or a signal.
    """
    setup_globals()
    forks = fork and can_fork()
    places = environments(n_jobs)
    waiting = deque(points.items())
    running: dict[int, _Attempt] = {}
    returned = []
    before = HydraConfig.instance().cfg
    with _logging_to_console(config), Children() as children:
        while waiting or running:
            while waiting and len(running) < n_jobs:
                attempt = _Attempt(context, body, config, *waiting.popleft())
                returned.append(attempt.returned)
                place = min(set(range(n_jobs)) - running.keys())
                if attempt.starts(children, places[place], forks):
                    running[place] = attempt
            time.sleep(PAUSE)
            for place, attempt in list(running.items()):
                if attempt.has_ended():
                    del running[place]
    HydraConfig.instance().cfg = before
    return returned


def environments(n_jobs: int) -> list[dict[str, str]]:
    """Return the environment variables of each of `n_jobs` jobs that run side by side.

    They share the threads of this machine, unless OMP_NUM_THREADS gives each process its
    number, and are dealt out to its GPUs. A single job has all of both.
    """
    if n_jobs == 1:
        return [{}]
    threads = {THREADS: str(max(1, torch.get_num_threads() // n_jobs))}
    shared = {} if THREADS in os.environ else threads
    # Counting starts CUDA where NVML is missing, and no fork survives that.
    count = apart(torch.cuda.device_count)
    names = (os.environ.get(DEVICES) or ",".join(map(str, range(count)))).split(",")
    return [
        shared | ({DEVICES: names[place % count]} if count else {})
        for place in range(n_jobs)
    ]


class _Attempt:
    """One job of a launch: its configuration, its child, and what Hydra records of it."""

    def __init__(
        self,
        context: HydraContext,
        body: Any,
        config: DictConfig,
        number: int,
        overrides: Sequence[str],
    ) -> None:
        self.callbacks, self.body = context.callbacks, body
        loader: Any = context.config_loader
        self.config = loader.load_sweep_config(config, list(overrides))
        with open_dict(self.config):
            self.config.hydra.job.id = self.config.hydra.job.num = number
        HydraConfig.instance().set_config(self.config)  # the folder is named after it
        sweep = self.config.hydra.sweep
        folder = Path(os.path.abspath(sweep.dir)) / str(sweep.subdir)
        runtime = self.config.hydra.runtime
        with read_write(runtime), open_dict(runtime):
            runtime.output_dir = str(folder)
        HydraConfig.instance().set_config(self.config)
        self.job = Job.present()
        keys = [str(key) for key in self.config if key != "hydra"]
        self.bare = OmegaConf.masked_copy(self.config, keys)
        self.returned = JobReturn(
            overrides=list(self.config.hydra.overrides.task),
            cfg=self.bare,
            hydra_cfg=HydraConfig.instance().cfg,  # type: ignore[arg-type]
            working_dir=os.getcwd(),
            task_name=self.config.hydra.job.name,
        )

    def starts(
        self, children: Children, environment: Mapping[str, str], forks: bool
    ) -> bool:
        """Start the job; return False if it is over already: finished before, or refused."""
        self.callbacks.on_job_start(config=self.config, task_function=self.body)
        self.begun = time.perf_counter()
        if (score := self.job.score_before()) is None:
            log.info("%s starts", self.job.name)
            try:
                if child := self._child(children, environment, forks):
                    self.child = child
                    return True
                score = self.job.score_before()
            except StorageError as error:
                score = self.job.score_after(failure(error), 0)
        self._conclude(score)
        return False

    def _child(
        self, children: Children, environment: Mapping[str, str], forks: bool
    ) -> Child | None:
        folder = self.job.folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (words := begin(self.job.words, folder)) is None:
            return None
        if not (folder / OVERRIDES).is_file():  # for a job that does not get that far
            write_command(folder, self.bare)
        command = [sys.executable, self.body.script, *words]
        variables = {**self.config.hydra.job.env_set, **environment}
        run = children.fork if forks else children.start
        with (folder / CONSOLE).open("a", encoding="utf-8") as output:
            return run(command, output, variables)

    def has_ended(self) -> bool:
        """Return False while the child runs; record and log its end after that."""
        if (code := self.child.poll()) is None:
            return False
        try:
            status = end(self.job.folder, code)
        except StorageError as error:
            status = failure(error)
        seconds = time.perf_counter() - self.begun
        self._conclude(self.job.score_after(status, seconds))
        return True

    def _conclude(self, score: float | None) -> None:
        self.returned.return_value = score
        self.returned.status = JobStatus.COMPLETED
        HydraConfig.instance().set_config(self.config)
        self.callbacks.on_job_end(config=self.config, job_return=self.returned)


@contextmanager
def _logging_to_console(config: DictConfig) -> Iterator[None]:
    """Log within the body as a job does, but to no file: each job has its own."""
    hydra = config.hydra
    plain: Any = OmegaConf.to_container(hydra.job_logging)
    handlers, root = plain.get("handlers") or {}, plain.get("root") or {}
    for name in [name for name, handler in handlers.items() if "filename" in handler]:
        del handlers[name]
        root["handlers"] = [kept for kept in root["handlers"] if kept != name]
    configure_log(OmegaConf.create(plain, parent=hydra), hydra.verbose)
    try:
        yield
    finally:
        configure_log(hydra.hydra_logging, hydra.verbose)
