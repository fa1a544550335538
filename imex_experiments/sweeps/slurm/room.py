"""Count the jobs that a partition of SLURM holds."""

import re
from math import inf

from omegaconf import DictConfig

from imex_experiments.errors import ConfigError
from imex_experiments.sweeps.slurm.commands import output, sbatch
from imex_experiments.sweeps.slurm.settings import megabytes, options_of


def jobs_at_once(launcher: DictConfig) -> int:
    """Return how many jobs the nodes of the partition hold, at most array_parallelism.

    The jobs of others are not known. ConfigError if SLURM would refuse a job.
    """
    sbatch(["--test-only", *options_of(launcher)], "#!/bin/bash\n")
    command = ["sinfo", "--noheader", "--Node", "--format=%P|%N|%T|%l|%c|%m|%G"]
    if launcher.partition:
        command.append(f"--partition={launcher.partition}")
    nodes, limits = {}, {}
    for line in output(command).splitlines():
        partition, node, state, limit, *size = line.split("|")
        if launcher.partition or partition.endswith("*"):
            limits[partition.rstrip("*")] = limit
            if not state.startswith(("down", "drain", "fail", "maint", "unk")):
                nodes[node] = int(size[0]), int(size[1]), _gpus(size[2])
    if limits and all(
        _minutes(limit) < launcher.timeout_min for limit in limits.values()
    ):
        told = ", ".join(f"{name} {limit}" for name, limit in limits.items())
        raise ConfigError(
            f"hydra.launcher.timeout_min={launcher.timeout_min}: more than the limit of "
            f"the partition ({told}), jobs would wait for ever"
        )
    wanted = (
        launcher.cpus_per_task or 1,
        megabytes(launcher),
        launcher.gpus_per_node or _gpus(launcher.gres or ""),
    )
    held = [
        min(there // n for there, n in zip(node, wanted, strict=True) if n)
        for node in nodes.values()
    ]
    return min(sum(held), launcher.array_parallelism)


def _minutes(limit: str) -> float:
    """Return minutes of SLURM's words for a time: `1-12:00:00`, `30:00`, `infinite`."""
    if not limit[0].isdecimal():
        return inf
    days, _, clock = limit.rpartition("-")
    hours, minutes, seconds = (["0", "0", *clock.split(":")])[-3:]
    return (int(days or 0) * 24 + int(hours)) * 60 + int(minutes) + int(seconds) / 60


def _gpus(gres: str) -> int:
    """Return the number of GPUs in SLURM's words: `gpu:2`, `gpu:a100:4(S:0-1)`."""
    return sum(
        map(int, re.findall(r"\bgpu(?::[^:,()]*[^\d:,()][^:,()]*)?:(\d+)", gres))
    )
