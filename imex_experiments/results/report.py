"""What a sweep leaves at its end: results.csv, summary.md, and pictures with numbers."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import pandas as pd

from imex_experiments.errors import StorageError
from imex_experiments.files import write_text
from imex_experiments.results.comparison import Comparison
from imex_experiments.results.figures import NEEDS, pictures
from imex_experiments.results.sources import commands
from imex_experiments.results.table import FINISHED, metric_columns, varied
from imex_experiments.results.tables import best, differences, failures, settings

COUNTS = ("parameters", "flops")
"""Beginnings of metrics that are whole numbers, and are written as such."""


def write_report(
    comparison: Comparison, sources: Sequence[str | Path], out: str | Path
) -> None:
    """Write a comparison of the runs in sweeps and run folders into the folder `out`.

    results.csv has one row per run and depends on the runs' results alone; summary.md the
    statistics; every picture comes with a CSV of its numbers, and is left out where it has
    nothing to show. StorageError if `out` cannot be written.
    """
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "results.csv", results(comparison.runs).to_csv())
        made = pictures(comparison)
        for name, (figure, numbers) in made.items():
            figure.savefig(folder / f"{name}.png", dpi=150)
            write_text(folder / f"{name}.csv", numbers.to_csv(index=False))
        write_text(folder / "summary.md", summary(comparison, sources, made))
    except OSError as error:
        raise StorageError(f"out={folder}: cannot be written ({error})") from error


def results(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of results.csv: nothing that a clock or a folder's place decides."""
    metrics = [name for name in metric_columns(runs) if not name.endswith("seconds")]
    asked = ["model", "data", "seed", "h", "alpha", *varied(runs)]
    table = runs[[*asked, "state", "reason", "monitor", *metrics]]
    counts = [
        name
        for name in metrics
        if name.startswith(COUNTS) and (table[name].dropna() % 1 == 0).all()
    ]
    return table.astype(dict.fromkeys(counts, "Int64"))


def summary(
    comparison: Comparison, sources: Iterable[str | Path], made: Collection[str]
) -> str:
    """Return summary.md: commands, tables, and the pictures that were made."""
    finished = (comparison.runs["state"] == FINISHED).sum()
    parts = [
        "# Comparison\n",
        f"{len(comparison.runs)} jobs, {finished} finished. Settings are chosen by "
        f"{comparison.monitor}, differences and pictures are of {comparison.metric}. "
        "All rows are in [results.csv](results.csv).\n",
        "```bash\n" + "\n".join(commands(sources)) + "\n```\n",
    ]
    tables = (best, differences, settings, failures)
    parts += [table(comparison).markdown() for table in tables]
    parts += ["## Pictures\n"]
    parts += [f"![{name}]({name}.png) ([numbers]({name}.csv))\n" for name in made]
    left_out = [name for name in NEEDS if name not in made]
    parts += [f"No {name}: it needs {NEEDS[name]}.\n" for name in left_out]
    return "\n".join(parts)
