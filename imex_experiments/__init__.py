"""Residual networks read as time integrators.

`train(model="imexnet", data="qtips")` trains, `load_run(run)` returns a trained task,
`load_pretrained(name)` one that comes with the package, and `runs_table(sweep)` the runs of
sweeps as a DataFrame. For networks of other packages, `ImplicitConv2d` is the implicit step as
a layer, and `imexify` puts it behind their residual additions.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imex_experiments.interactive import train
    from imex_experiments.networks.imexify import imexify
    from imex_experiments.results.table import runs_table
    from imex_experiments.runs.load import load_run
    from imex_experiments.runs.pretrained import load_pretrained
    from imex_experiments.terms.diffusion import ImplicitConv2d

__all__ = [
    "ImplicitConv2d",
    "imexify",
    "load_pretrained",
    "load_run",
    "runs_table",
    "train",
]
__version__ = "0.1.0"

PLACES = {
    "imexify": "networks.imexify",
    "load_run": "runs.load",
    "train": "interactive",
    "load_pretrained": "runs.pretrained",
    "runs_table": "results.table",
    "ImplicitConv2d": "terms.diffusion",
}
"""Name -> module. They are imported on first use.

A command installs its signal handlers before torch is imported, which takes seconds.
"""


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{PLACES[name]}"), name)
