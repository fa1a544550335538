"""Residual networks read as time integrators.

`load_run(run)` gives back a trained task, `runs_table(sweep)` the runs of sweeps as a table;
for other people's networks, `ImplicitConv2d` is the implicit step as a layer, and `imexify`
puts it into residual additions.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imex_experiments.networks.imexify import imexify
    from imex_experiments.results.table import runs_table
    from imex_experiments.runs.load import load_run
    from imex_experiments.terms.diffusion import ImplicitConv2d

__all__ = ["ImplicitConv2d", "imexify", "load_run", "runs_table"]
__version__ = "0.1.0"

PLACES = {
    "imexify": "networks.imexify",
    "load_run": "runs.load",
    "runs_table": "results.table",
    "ImplicitConv2d": "terms.diffusion",
}
"""Imported when they are asked for: a command is to know its signals before torch comes."""


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{PLACES[name]}"), name)
