"""Start a network from trained weights of a run or of a file, as far as they fit.

A file may come from another person: it is a regular file of bounded size, no pickled code
is run, and only tensors are taken.
"""

import io
import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from imex_experiments.errors import CheckpointError
from imex_experiments.files import open_regular, read_regular
from imex_experiments.runs.checkpoint_io import (
    MOST_BYTES,
    checksum_of,
    read_checkpoint,
)
from imex_experiments.runs.contents import check_container, check_contents
from imex_experiments.runs.layout import BEST

log = logging.getLogger(__name__)

WRAPPERS = re.compile(r"^(network\.)+")
"""Beginning of a name in a task, or in a network around another."""

NESTED = ("state_dict", "model")
"""Keys below which files of others have the weights."""

MOST_NAMES = 6
"""Most names in a line of the log."""


def start_from(task: nn.Module, source: str | Path) -> None:
    """Load the weights of a run's best checkpoint, or of a file, that fit by name and shape.

    Names are compared without `network.` in front, so that the weights of a network fit the
    task around it, and its imexified copy. One line of the log lists what does not fit.
    Raises CheckpointError if no weight fits, and as `read_weights` does.
    """
    found = {WRAPPERS.sub("", name): t for name, t in read_weights(source).items()}
    state = task.state_dict()
    wanted = {WRAPPERS.sub("", name): name for name in state}
    fitting = {
        name: found[name]
        for name in found.keys() & wanted.keys()
        if _alike(found[name], state[wanted[name]])
    }
    other = [
        f"{name} {_kind(found[name])} for {_kind(state[wanted[name]])}"
        for name in wanted
        if name in found and name not in fitting
    ]
    report = f"weights={source}: {len(fitting)} of {len(wanted)} tensors fit" + "".join(
        f"; {kind}: {_some(names)}"
        for kind, names in (
            ("missing", [name for name in wanted if name not in found]),
            ("of another shape or type", other),
            ("not of this network", [name for name in found if name not in wanted]),
        )
        if names
    )
    trained = {WRAPPERS.sub("", name) for name, _ in task.named_parameters()}
    if not trained & fitting.keys():
        raise CheckpointError(report.replace(f"{len(fitting)} of", "none of", 1))
    task.load_state_dict({wanted[n]: t for n, t in fitting.items()}, strict=False)
    log.log(
        logging.INFO if len(fitting) == len(wanted) == len(found) else logging.WARNING,
        report,
    )


def read_weights(source: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a run's best checkpoint or of a file of weights.

    That is a .safetensors file, or one of torch.save with a state dict, also one under the
    key `state_dict` or `model`. A file that has a checksum beside it must match it.
    Raises CheckpointError for anything else.
    """
    path = Path(source)
    if path.is_dir():
        return read_checkpoint(path / BEST)["state_dict"]
    if path.suffix == ".safetensors":
        return read_safetensors(path)[0]
    content = read_checkpoint(path) if checksum_of(path).is_file() else _plain(path)
    for key in NESTED:
        content = content.get(key, content)
    if not (isinstance(content, dict) and all(map(_is_tensor, content.items()))):
        raise CheckpointError(f"weights={path}: not a state dict, names with tensors")
    return content


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a .safetensors file.

    Raises CheckpointError for any other file.
    """
    try:
        open_regular(path, MOST_BYTES).close()
        with safe_open(path, framework="pt") as file:
            tensors = {n: file.get_tensor(n) for n in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except Exception as error:  # foreign bytes may fail in any way
        raise _unreadable(path, error) from error


def _plain(path: Path) -> dict[str, Any]:
    try:
        content = read_regular(path, MOST_BYTES)
        check_container(content)
        found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        check_contents(found)
    except Exception as error:
        raise _unreadable(path, error) from error
    return found


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return CheckpointError(f"{path}: no weights in it ({reason.splitlines()[0][:200]})")


def _is_tensor(item: tuple[Any, Any]) -> bool:
    name, value = item
    return isinstance(name, str) and isinstance(value, Tensor)


def _alike(found: Tensor, wanted: Tensor) -> bool:
    same = found.is_floating_point() == wanted.is_floating_point()
    return same and not found.is_complex() and found.shape == wanted.shape


def _kind(tensor: Tensor) -> str:
    """Return the shape of a tensor, and its type if it is no floating-point number."""
    kind = "" if tensor.is_floating_point() else f" {tensor.dtype}"
    return f"{list(tensor.shape)}{kind}"


def _some(names: Iterable[str]) -> str:
    """Return the first names, and the number of the others."""
    names = [name[:100] for name in names]
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
