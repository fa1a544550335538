"""Read many runs into one table, compare them, and write tables and figures."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imex_experiments.results.table import runs_table

__all__ = ["runs_table"]


def __getattr__(name: str) -> Any:
    """Import `runs_table` on first use, so that a training does not import pandas."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from imex_experiments.results.table import runs_table

    return runs_table
