"""Filter the configuration and the overrides of a run folder of unknown origin.

A folder may come from another person, so its files must not name code or paths to write.
They are compared with what a run of this package writes, without resolving interpolations.
Overrides on the command line are the user's own and are not filtered. The whole protection is
described in docs/reliability.md.
"""

import itertools
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from shlex import join, quote
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, RangeSweep, Sweep
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from imex_experiments.config.allow import ALLOW, NAME, allowed_at_keyboard
from imex_experiments.config.build import hint_of_allow, lies_in, may_be_own
from imex_experiments.config.interpolations import (
    KNOWN,
    REFERENCE,
    check_unfolding,
    flat,
)
from imex_experiments.errors import CheckpointError, ConfigError
from imex_experiments.installed import command_line
from imex_experiments.runs.plain import MOST_DEPTH

MOST_PIXELS = 2**30
MOST_IMAGES = 2**20
MOST_NUMBER = 10_000
"""Limits of a folder: pixels and images of generated data, and any other count."""

CACHE = "${oc.env:IMEX_CACHE,'~/.cache/imex-experiments'}"
"""The cache of the user, as in conf/data."""


USED = ("seed", "data", "model", "task", "optimizer", "scheduler")
"""Keys that are used of the configuration in a folder; all others are ignored."""

TRAINER = (
    *("accelerator", "precision", "limit_val_batches", "limit_test_batches"),
    *("inference_mode", "deterministic", "benchmark"),
)
"""Keys of the trainer that are used of a folder, since they affect the metrics."""


def own_config(
    content: Any, run: Path, source: Path, allow: Sequence[str] = ()
) -> DictConfig:
    """Return the part of the configuration of a run that can be rebuilt safely.

    `run_dir` is the folder itself, the cache is that of the user, and the trainer has only
    the precision and the limits of the run. `allow` are packages of the user's own, which
    the person at the keyboard gives. Raises CheckpointError for resolvers, for data or a
    model over the limits of a folder, and for packages that the folder itself allows;
    ConfigError for foreign classes.
    """
    if not isinstance(content, dict):
        raise CheckpointError(f"{source}: not the configuration of a run")
    if content.get(ALLOW) and not allow:
        raise _allows(f"{ALLOW}={content[ALLOW]}", source, content[ALLOW], "...")
    config = {key: content[key] for key in USED if key in content}
    data = config.get("data")
    cache = isinstance(data, dict) and data.pop("cache_dir", None)
    for key, value in flat(config):
        _check_text(f"{key}={value}", source)
        _check_size(key, value, source)
        group, last = key.partition(".")[0], key.rpartition(".")[2]
        if last == "_target_" and not _may_be_named(group, value, allow):
            raise ConfigError(
                f"{source}: {key}={str(value)[:100]!r}: only classes of imex_experiments "
                f"for {group} may be named in a folder{hint_of_allow(value)}"
            )
    _check_pixels(data, source)
    check_unfolding(config)
    if cache:
        config["data"]["cache_dir"] = CACHE
    trainer = content.get("trainer")
    theirs = trainer if isinstance(trainer, dict) else {}
    ours = {k: theirs[k] for k in TRAINER if k in theirs and _is_setting(theirs[k])}
    config["trainer"] = {"_target_": "pytorch_lightning.Trainer", **ours}
    return OmegaConf.create({**config, "run_dir": str(run), ALLOW: list(allow)})


def _is_setting(value: Any) -> bool:
    return isinstance(value, int | float) or bool(re.fullmatch(r"[\w-]+", str(value)))


def _check_text(text: str, source: Path) -> None:
    """Raise CheckpointError for an interpolation that calls a resolver."""
    if REFERENCE.search(KNOWN.sub("", text)):
        raise CheckpointError(
            f"{source}: {text[:100]!r} is not taken from a folder, it could read what is "
            "yours; give it on the command line"
        )


COUNTS = {"train", "val", "test", "points", "batch_size", "invalid"}
PROCESSES = {"data.num_workers": 64, "trainer.devices": 64, "trainer.num_nodes": 1}
RENDERED = 640 * 480
"""Pixels of each of the `data.frames` frames."""


def _check_size(key: str, value: Any, source: Path) -> None:
    """Raise CheckpointError for a count in data or model over its limit."""
    group, _, name = key.partition(".")
    if key in PROCESSES:
        most = PROCESSES[key]
    elif group in ("data", "model") and name != "seed":
        most = MOST_IMAGES if name in COUNTS else MOST_NUMBER
    else:
        return
    counted = isinstance(value, int) or (group == "data" and isinstance(value, float))
    if counted and abs(value) > most:
        raise CheckpointError(
            f"{source}: {key}={value} is not taken from a folder, at most {most:,}"
        )


def _check_pixels(data: Any, source: Path) -> None:
    """Raise CheckpointError for generated data of more than MOST_PIXELS pixels."""
    if not isinstance(data, dict):
        return
    sides = data.get("image_size", 64)
    sides = sides if isinstance(sides, list) else [sides, sides]
    numbers = [data.get(key) for key in ("train", "val", "test")]
    total = sum(n for n in numbers if isinstance(n, int))
    for side in sides:
        total *= side if isinstance(side, int) else 1
    frames = data.get("frames", 0)
    total += RENDERED * frames if isinstance(frames, int) else 0
    if total > MOST_PIXELS:
        raise CheckpointError(
            f"{source}: data of {total:,} pixels are not taken from a folder, at most "
            f"{MOST_PIXELS:,}"
        )


NAMES_CODE = re.compile(r"-|[+~]*hydra\b|[^=]*@hydra\b")
"""Flags, and settings of Hydra itself, which can name any class and folder."""

PLACES = {
    *("path", "folder", "dirpath", "filename", "save_dir", "default_root_dir"),
    *("run_dir", "name", "version", "project", "experiment_name"),
}
"""Arguments, outside of data and model, that are places to write to."""

PLACE = re.compile(r"\$\{run_dir\}(/\w[\w.-]*)*|(\w[\w.-]*)?")
"""Allowed paths: below the run folder, and plain names."""

SENDING = re.compile(
    r"logger\.(?:wandb|mlflow)\."
    r"(?!(?:project|experiment_name|name|run_name|group|tags|prefix|offline)\b)"
)
"""Settings of loggers that send to a server, but for names within the user's account."""

PACKAGES = {
    "model": r"imex_experiments\.(networks|terms|integrators|solvers|operators)\.[\w.]+",
    "data": r"imex_experiments\.data\.[\w.]+",
    "task": r"imex_experiments\.tasks\.[\w.]+",
    "optimizer": r"torch\.optim\.[\w.]+",
    "scheduler": r"(torch\.optim|imex_experiments\.tasks)\.[\w.]+",
    "logger": r"imex_experiments\.loggers\.[\w.]+",
    "callbacks": r"imex_experiments\.callbacks\.[\w.]+"
    r"|pytorch_lightning\.callbacks\.(RichProgressBar|TQDMProgressBar|EarlyStopping"
    r"|LearningRateMonitor|Timer|StochasticWeightAveraging|WeightAveraging"
    r"|GradientAccumulationScheduler|ModelSummary|RichModelSummary|DeviceStatsMonitor)",
    "trainer": r"pytorch_lightning\.Trainer",
}
"""Part -> classes that a folder may name: of this package, and without output files."""


def _may_be_named(group: str, path: Any, allow: Sequence[str]) -> bool:
    """Return True for a class of this package for that part, and for an allowed one."""
    ours = re.fullmatch(PACKAGES.get(group, ""), str(path))
    return bool(ours) or (group in PACKAGES and lies_in(str(path), allow))


def _allows(said: str, source: Path, packages: Any, command: str) -> ConfigError:
    """Return the error for a folder that itself allows classes of other packages."""
    names = packages if isinstance(packages, list) else [packages]
    names = [str(name)[:100] for name in names[:8]]
    own = [name for name in names if NAME.fullmatch(name) and may_be_own(name)]
    again = quote(f"{ALLOW}=[{','.join(own)}]")
    remedy = f"; if they are yours, give it again: {command} {again}" if own else ""
    return ConfigError(
        f"{source}: {said[:100]!r} is not taken from a folder, its classes run code{remedy}"
    )


def taken_words(
    words: Any,
    source: Path,
    given: Sequence[str],
    dropped: Collection[str] = ("data.cache_dir", ALLOW),
) -> list[str]:
    """Return the overrides of a folder that may be added to the arguments `given`.

    Overrides of the keys in `dropped` are left out. A refused override may be given on the
    command line instead. Classes may be of the packages that `given` allows. Raises
    CheckpointError for settings of Hydra, resolvers, foreign classes, paths outside of the
    run folder, and counts over their limits; ConfigError for packages that the folder
    itself allows.
    """
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise CheckpointError(f"{source}: not a list of overrides")
    now, allow = {_key(word) for word in given}, allowed_at_keyboard(given)
    for word in words:
        if _key(word) == ALLOW and ALLOW not in now:
            packages = allowed_at_keyboard([word])
            command = f"{command_line('train')} {join(given)}"
            raise _allows(word, source, packages, command)
    taken: list[str] = []
    data: dict[str, int] = {}
    points = 1
    for word in words:
        if _key(word) in dropped:
            continue
        try:
            alternatives = check_word(word, source, allow)
        except CheckpointError:
            if _key(word) not in now:
                raise
            continue
        taken.append(word)
        points *= max(1, len(alternatives))
        for key, value in itertools.chain.from_iterable(alternatives):
            if key.startswith("data.") and isinstance(value, int):
                name = key.removeprefix("data.")
                data[name] = max(value, data.get(name, 0))
    _check_pixels(data, source)
    if points > MOST_NUMBER:
        raise CheckpointError(f"{source}: a sweep of {points:,} points or more")
    return taken


def check_word(
    word: str, source: Path, allow: Sequence[str] = ()
) -> list[list[tuple[str, Any]]]:
    """Return the dotted keys and values that an override sets, for each point of a sweep.

    Classes may be of the packages in `allow`, too. Raises CheckpointError for an override
    that is not allowed in a folder.
    """
    if NAMES_CODE.match(word):
        raise _not_taken(word, source, "it could run code")
    _check_text(word, source)
    alternatives = _meaning(word, source)
    for key, value in itertools.chain.from_iterable(alternatives):
        group, _, rest = key.partition(".")
        last = key.rpartition(".")[2]
        place = last in PLACES and group not in ("data", "model", "task")
        if group == ALLOW:
            raise _not_taken(word, source, "it could run code")
        if last == "_target_":
            if not _may_be_named(group, value, allow):
                reason = f"it is none of the classes of a run{hint_of_allow(value)}"
                raise _not_taken(word, source, reason)
        elif SENDING.match(key):
            raise _not_taken(word, source, "a run is reported to places of yours alone")
        elif place and not (value is None and last == "path"):
            if key == "run_dir" or not PLACE.fullmatch(str(value)):
                raise _not_taken(word, source, "a run writes into its own folder alone")
        elif key == "weights" and value is not None:
            raise _not_taken(word, source, "a run starts from weights of yours alone")
        elif "${" in str(value) and (not rest or key == "trainer.profiler"):
            raise _not_taken(
                word, source, "its value is an interpolation, which cannot be checked"
            )
        _check_size(key, value, source)
    return alternatives


def _not_taken(word: str, source: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{source}: {word[:100]!r} is not taken from a folder, {reason}; give it on the "
        "command line"
    )


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+~")


def _meaning(word: str, source: Path) -> list[list[tuple[str, Any]]]:
    """Return the dotted keys and values that an override sets, for each point."""
    if len(word) > MOST_NUMBER:
        raise CheckpointError(f"{source}: an override of {len(word):,} characters")
    try:
        override = OverridesParser.create().parse_override(word)
        points = _points(override.value())
        key = override.key_or_group
        return [list(flat(_unquoted(point), key)) for point in points]
    except (HydraException, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{source}: {word[:100]!r}: {reason}") from error


def _points(value: Any) -> list[Any]:
    """Return the values of an override, several for a sweep."""
    if isinstance(value, ChoiceSweep):
        return value.list
    if isinstance(value, RangeSweep):
        steps = (float(value.stop or 0) - float(value.start or 0)) / float(value.step)
        if abs(steps) > MOST_NUMBER:
            raise ValueError(f"more than {MOST_NUMBER:,} points")
        return list(value.range())
    if isinstance(value, Sweep | Glob):
        raise ValueError("not a sweep over given values")
    return [value]


def _unquoted(value: Any, depth: int = 0) -> Any:
    """Return values of Hydra's grammar as plain ones. Raises ValueError if nested deep."""
    if depth > MOST_DEPTH:
        raise ValueError(f"more than {MOST_DEPTH} levels")
    if isinstance(value, Mapping):
        texts = {str(getattr(key, "text", key)): item for key, item in value.items()}
        return {key: _unquoted(item, depth + 1) for key, item in texts.items()}
    if isinstance(value, list | tuple):
        return [_unquoted(item, depth + 1) for item in value]
    return getattr(value, "text", value)
