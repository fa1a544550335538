"""Many runs read back: one table, compared, drawn and written down."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imex_experiments.results.table import runs_table

__all__ = ["runs_table"]


def __getattr__(name: str) -> Any:
    """Import `runs_table` when it is asked for: a single run does without pandas."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from imex_experiments.results.table import runs_table

    return runs_table
