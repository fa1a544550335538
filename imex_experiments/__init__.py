"""Residual networks read as time integrators.

`load_run(run)` gives back a trained task; `ImplicitConv2d` is the implicit step as a layer
for other people's networks.
"""

from imex_experiments.runs.load_run import load_run
from imex_experiments.terms.diffusion import ImplicitConv2d

__all__ = ["ImplicitConv2d", "load_run"]
__version__ = "0.1.0"
