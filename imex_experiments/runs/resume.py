"""resume=<run>: the command of a run again, in the folder of that run."""

import re
from collections.abc import Iterable
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from imex_experiments.runs.checkpoint_io import (
    has_checkpoint,
    newest_verified,
    read_checkpoint,
)
from imex_experiments.runs.errors import CheckpointError, ConfigError
from imex_experiments.runs.files import read_yaml
from imex_experiments.runs.layout import (
    CONFIG,
    OVERRIDES,
    hydra_quoted,
    single_value,
)
from imex_experiments.runs.record import read_status
from imex_experiments.tasks import Task

CHANGED = "resume_changed"
"""The key that allows a resumed run to be configured otherwise than it was."""

OWN = {"resume", CHANGED, "check"}
FREE = {"data.num_workers", "data.cache_dir", "trainer.accelerator", "trainer.devices"}
"""Keys that a resumed run may change: where it runs, not what it computes."""

NAMES_CODE = re.compile(r"-|[+~]*hydra\b|[^=]*@hydra\b")
"""Flags, and settings of Hydra itself, which can name any class and any folder."""


def resumed_arguments(arguments: list[str]) -> list[str]:
    """The arguments themselves, or for `resume=<run>` those of the run and then these.

    CheckpointError if there is no such run, nothing to go on from, or words in it that no
    run of ours has recorded.
    """
    given = [word for word in arguments if word.lstrip("+").startswith("resume=")]
    if not given:
        return arguments
    run = Path(single_value(given[-1]))
    if not (run / OVERRIDES).is_file():
        raise CheckpointError(
            f"resume={run}: not a run folder, it has no {OVERRIDES}; start a new run"
        )
    if not has_checkpoint(run):
        raise CheckpointError(
            f"resume={run}: no checkpoint to go on from; start a new run"
        )
    before = without_code(read_yaml(run / OVERRIDES), run / OVERRIDES)
    before = [word for word in before if word.partition("=")[0] not in OWN]
    place = [f"hydra.run.dir={hydra_quoted(run)}", "hydra.output_subdir=null"]
    return [*before, *place, *arguments]


def without_code(words: Iterable[object], source: Path) -> list[str]:
    """Words of a folder that may join a command line; CheckpointError for others."""
    taken = [str(word) for word in words]
    for word in taken:
        if NAMES_CODE.match(word):
            raise CheckpointError(
                f"{source}: {word!r} is not taken from a folder; it could run code"
            )
    return taken


def refuse_changes(cfg: DictConfig) -> None:
    """ConfigError with the differing fields if a resumed run is not configured as it was."""
    if cfg.resume is None or cfg[CHANGED]:
        return
    before = dotted(read_yaml(Path(cfg.resume) / CONFIG))
    now = dotted(
        OmegaConf.create({k: v for k, v in cfg.items_ex(False) if k != "hydra"})
    )
    changed = [
        f"{key}: {before.get(key)} -> {now.get(key)}"
        for key in sorted((before.keys() | now.keys()) - OWN - FREE)
        if before.get(key) != now.get(key)
    ]
    if changed:
        raise ConfigError(
            f"resume={cfg.resume}: the configuration differs from the run's "
            f"({'; '.join(changed)}); start a new run, or add {CHANGED}=true"
        )


def refuse_unfit(cfg: DictConfig, task: Task) -> None:
    """Refuse to go on from a checkpoint that does not fit; nothing of the run is changed.

    CheckpointError if none of the run's verifies, or the newest one is of another network;
    ConfigError if it is further than the trainer is to go.
    """
    path = newest_verified(Path(cfg.resume))
    state = read_checkpoint(path)
    try:
        progress = state["loops"]["fit_loop"]["epoch_progress"]["current"]
        done = {"max_epochs": progress["ready"], "max_steps": state["global_step"]}
        task.load_state_dict(state["state_dict"])
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: no state to go on from ({error})") from error
    for key, number in done.items():
        limit = cfg.trainer.get(key)
        if limit is not None and -1 < limit < number:
            raise ConfigError(
                f"trainer.{key}={limit}: the run has trained {number} "
                f"{key.removeprefix('max_')} already; give {number} or more"
            )


def is_finished(cfg: DictConfig) -> bool:
    """Whether the run to resume has nothing left to do."""
    return (
        cfg.resume is not None
        and not cfg[CHANGED]
        and read_status(Path(cfg.resume)).get("state") == "finished"
    )


def dotted(node: object, prefix: str = "") -> dict[str, object]:
    """Dotted keys of a configuration, interpolations unresolved."""
    if isinstance(node, DictConfig):
        node = OmegaConf.to_container(node, resolve=False)
    if not isinstance(node, dict):
        return {prefix: node}
    flat: dict[str, object] = {}
    for key, value in node.items():
        flat |= dotted(value, f"{prefix}.{key}" if prefix else str(key))
    return flat
