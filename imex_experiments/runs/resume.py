"""resume=<run>: the command of a run again, in the folder of that run."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from imex_experiments.runs.checkpoint_io import has_checkpoint
from imex_experiments.runs.errors import CheckpointError, ConfigError
from imex_experiments.runs.layout import (
    CONFIG,
    OVERRIDES,
    hydra_quoted,
    single_value,
)
from imex_experiments.runs.record import read_status


def resumed_arguments(arguments: list[str]) -> list[str]:
    """The arguments themselves, or for `resume=<run>` those of the run and then these.

    CheckpointError if there is no such run or nothing to go on from.
    """
    given = [word for word in arguments if word.startswith("resume=")]
    if not given:
        return arguments
    run = Path(single_value(given[-1]))
    if not (run / OVERRIDES).is_file():
        raise CheckpointError(f"resume={run}: not a run folder, it has no {OVERRIDES}")
    if not has_checkpoint(run):
        raise CheckpointError(f"resume={run}: no checkpoint to go on from")
    before = [str(word) for word in OmegaConf.load(run / OVERRIDES)]
    before = [word for word in before if not word.startswith("resume=")]
    return [*before, f"hydra.run.dir={hydra_quoted(run)}", *arguments]


def refuse_changes(cfg: DictConfig) -> None:
    """ConfigError with the differing fields if a resumed run is not configured as it was."""
    if cfg.resume is None:
        return
    before = dotted(OmegaConf.load(Path(cfg.resume) / CONFIG))
    now = dotted(
        OmegaConf.create({k: v for k, v in cfg.items_ex(False) if k != "hydra"})
    )
    changed = [
        f"{key}: {before.get(key)} -> {now.get(key)}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and key != "resume"
    ]
    if changed:
        raise ConfigError(
            f"resume={cfg.resume}: the configuration differs from the run's "
            f"({'; '.join(changed)}); start a new run for another configuration"
        )


def is_finished(cfg: DictConfig) -> bool:
    """Whether the run to resume has nothing left to do."""
    return (
        cfg.resume is not None
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
