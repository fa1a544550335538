"""Trained networks in one file each: those of this package, and those of others.

A .safetensors file has the weights of a task, and in its metadata `config`, the YAML of its
model and task; `facts`, the JSON of its data's facts; and `scores`, the JSON of its metrics.
A model card lies beside it. The file may come from another person. It is read like a run
folder: see `strangers` and `contents`.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import yaml
from omegaconf import OmegaConf
from safetensors.torch import save

from imex_experiments.errors import CheckpointError, ConfigError, nearest
from imex_experiments.facts import complete
from imex_experiments.files import as_json, write_bytes
from imex_experiments.installed import PACKAGE
from imex_experiments.runs.load import checked, fitting, load_config, load_run, rebuilt
from imex_experiments.runs.plain import json_in, yaml_in
from imex_experiments.runs.strangers import own_config
from imex_experiments.runs.transfer import read_safetensors
from imex_experiments.tasks import Task

FOLDER = PACKAGE / "pretrained"
"""The networks that come with this package."""

SUFFIX = ".safetensors"
MOST_BYTES = 10**6
"""Most bytes of a network that comes with this package."""


def load_pretrained(name: str | Path) -> Task:
    """Return a trained task, in evaluation mode on the CPU.

    `name` is that of a network that comes with this package, or the path of a file that
    `write_pretrained` wrote. Only classes of imex_experiments are built. Raises ConfigError
    for an unknown name, with the nearest one, and CheckpointError for any other file.
    """
    path = Path(name)
    if path.suffix != SUFFIX:
        path = FOLDER / f"{name}{SUFFIX}"
        if str(name) not in (known := pretrained_names()):
            raise ConfigError(
                f"{name}: no trained network, {nearest(str(name), known)}"
            )
    weights, stated = read_safetensors(path)
    if missing := {"config", "facts"} - stated.keys():
        raise CheckpointError(
            f"{path}: no trained task, its metadata lack {', '.join(sorted(missing))}"
        )
    content = yaml_in(stated["config"], path)
    config = checked(own_config(content, path.parent, path), "model", "task")
    with fitting(path, "the configuration in its metadata"):
        return rebuilt(config, complete(json_in(stated["facts"], path)), weights)


def pretrained_names() -> list[str]:
    """Return the names of the networks that come with this package."""
    return sorted(path.stem for path in FOLDER.glob(f"*{SUFFIX}"))


def write_pretrained(
    path: Path, run: str | Path, scores: Mapping[str, float], most: int = MOST_BYTES
) -> Task:
    """Write the best weights of a run to a .safetensors file; return the task in it.

    No path of the run is written. Raises ConfigError for a file of more than `most` bytes.
    """
    task: Task = load_run(run)
    config = load_config(run)
    parts = {
        key: OmegaConf.to_container(config[key], resolve=True)
        for key in ("model", "task")
    }
    content = save(
        {name: tensor.contiguous() for name, tensor in task.state_dict().items()},
        {
            "config": yaml.safe_dump(parts, sort_keys=False),
            "facts": json.dumps(task.facts),
            "scores": as_json(scores),
        },
    )
    if len(content) > most:
        raise ConfigError(
            f"run={run}: {len(content):,} bytes of weights, at most {most:,} are published"
        )
    write_bytes(path, content)
    return load_pretrained(path)
