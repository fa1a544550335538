"""Residual networks read as time integrators.

`load_run(run)` gives back a trained task; for other people's networks, `ImplicitConv2d` is the
implicit step as a layer, and `imexify` puts it into residual additions.
"""

from imex_experiments.networks.imexify import imexify
from imex_experiments.runs.load_run import load_run
from imex_experiments.terms.diffusion import ImplicitConv2d

__all__ = ["ImplicitConv2d", "imexify", "load_run"]
__version__ = "0.1.0"
