"""Resume a run: `resume=<run>` repeats its overrides, in its folder."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from imex_experiments.config.allow import ALLOW
from imex_experiments.config.interpolations import dotted
from imex_experiments.config.keys import CHANGED
from imex_experiments.config.overrides import hydra_quoted, single_value
from imex_experiments.config.trainer import quiet_trainer
from imex_experiments.errors import CheckpointError, ConfigError
from imex_experiments.runs.checkpoint_io import (
    has_checkpoint,
    newest_verified,
    read_checkpoint,
)
from imex_experiments.runs.contents import require_alike
from imex_experiments.runs.layout import CONFIG, OVERRIDES
from imex_experiments.runs.plain import check_folder, read_yaml
from imex_experiments.runs.status import status_if_readable
from imex_experiments.runs.strangers import taken_words
from imex_experiments.tasks import Task

OWN = {"resume", CHANGED, "check", "weights", ALLOW}
FREE = {"data.num_workers", "data.cache_dir", "trainer.accelerator", "trainer.devices"}
"""Keys that a resumed run may change, because they do not change its results."""


def resumed_arguments(arguments: list[str]) -> list[str]:
    """Return the arguments, for `resume=<run>` after the overrides of that run.

    Raises CheckpointError if there is no such run, no checkpoint in it, or an override that
    no run records.
    """
    given = [word for word in arguments if word.lstrip("+").startswith("resume=")]
    if not given:
        return arguments
    run = Path(single_value(given[-1]))
    check_folder(run)
    if not (run / OVERRIDES).is_file():
        raise CheckpointError(
            f"resume={run}: not a run folder, it has no {OVERRIDES}; start a new run"
        )
    if not has_checkpoint(run):
        raise CheckpointError(
            f"resume={run}: no checkpoint to go on from; start a new run"
        )
    words, ours = read_yaml(run / OVERRIDES), {"data.cache_dir", *OWN}
    before = taken_words(words, run / OVERRIDES, arguments, dropped=ours)
    place = [f"hydra.run.dir={hydra_quoted(run)}", "hydra.output_subdir=null"]
    return [*before, *place, *arguments]


def refuse_changes(cfg: DictConfig) -> None:
    """Raise ConfigError with the differing keys if a resumed run is configured otherwise.

    A key that was added to this package after the run has a default without effect. It
    differs only if it is given now. Loggers may differ: they do not change the results.
    """
    if cfg[CHANGED]:
        return
    before = dotted(read_yaml(Path(cfg.resume) / CONFIG))
    given = [word.lstrip("+").partition("=")[0] for word in cfg.hydra.overrides.task]
    now = dotted(
        OmegaConf.create({k: v for k, v in cfg.items_ex(False) if k != "hydra"})
    )
    changed = [
        f"{key}: {before.get(key)} -> {now.get(key)}"
        for key in sorted((before.keys() | now.keys()) - OWN - FREE)
        if before.get(key) != now.get(key)
        and (key in before or key in given)
        and key.partition(".")[0] != "logger"
    ]
    if changed:
        raise ConfigError(
            f"resume={cfg.resume}: the configuration differs from the run's "
            f"({'; '.join(changed)}); start a new run, or add {CHANGED}=true"
        )


def refuse_unfit(cfg: DictConfig, task: Task) -> None:
    """Refuse to resume from a checkpoint that does not fit, before any file is changed.

    Raises CheckpointError if no checkpoint of the run is sound, or the newest one is of
    another network, and ConfigError if it is beyond the end of the training.
    """
    path = newest_verified(Path(cfg.resume))
    state = read_checkpoint(path)
    try:
        progress = state["loops"]["fit_loop"]["epoch_progress"]["current"]
        done = {"max_epochs": progress["ready"], "max_steps": state["global_step"]}
        task.load_state_dict(state["state_dict"])
        if not cfg[CHANGED]:
            _restore(state, task)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise CheckpointError(f"{path}: no state to go on from ({error})") from error
    for key, number in done.items():
        limit = cfg.trainer.get(key)
        if limit is not None and -1 < limit < number:
            raise ConfigError(
                f"trainer.{key}={limit}: the run has trained {number} "
                f"{key.removeprefix('max_')} already; give {number} or more"
            )


def _restore(state: dict[str, Any], task: Task) -> None:
    """Restore loops, optimizer and scheduler of a checkpoint in new ones, as a test."""
    trainer = OmegaConf.create({"_target_": "pytorch_lightning.Trainer"})
    loop = quiet_trainer(trainer, accelerator="cpu").fit_loop
    loop.load_state_dict(state["loops"]["fit_loop"])
    restored, fresh = task.new_optimizer(), task.new_optimizer()
    make = task.make_scheduler
    schedulers = [make(fresh, total_steps=100)] if make else []
    (optimizer_state,) = state["optimizer_states"]
    restored.load_state_dict(optimizer_state)
    for parameter, moments in restored.state.items():
        for name, value in moments.items():
            if value.shape not in ((), parameter.shape):
                raise ValueError(f"{name} has the shape {tuple(value.shape)}")
    found, wanted = restored.state_dict(), fresh.state_dict()
    require_alike(found["param_groups"], wanted["param_groups"], "param_groups")
    expected = [scheduler.state_dict() for scheduler in schedulers]
    require_alike(state["lr_schedulers"], expected, "lr_schedulers")


def is_finished(cfg: DictConfig) -> bool:
    """Return True if the run to resume has finished."""
    state = status_if_readable(Path(cfg.resume)).get("state")
    return not cfg[CHANGED] and state == "finished"
