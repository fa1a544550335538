"""Write and print the report of a comparison: tables, and pictures with their numbers."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console

from imex_experiments.errors import StorageError
from imex_experiments.files import write_text
from imex_experiments.results.comparison import Comparison, compare
from imex_experiments.results.figures import NEEDS, pictures
from imex_experiments.results.sources import commands
from imex_experiments.results.table import FINISHED, metric_columns, varied
from imex_experiments.results.text_tables import (
    best,
    differences,
    failures,
    print_report,
    settings,
)

COUNTS = ("parameters", "flops")
"""Prefixes of metrics that are integers."""


def report(
    runs: pd.DataFrame,
    sources: Sequence[str | Path],
    out: Path,
    metric: str | None = None,
) -> None:
    """Compare a table of runs, write the report to `out`, and print its tables.

    Raises the errors of `compare` and `write_report`.
    """
    comparison = compare(runs, metric)
    write_report(comparison, sources, out)
    print_report(comparison)
    print(f"written     {out / 'summary.md'}, {out / 'results.csv'}, pictures")


def write_report(
    comparison: Comparison, sources: Sequence[str | Path], out: str | Path
) -> None:
    """Write a comparison of the runs in sweeps and run folders into the folder `out`.

    results.csv has one row per run and depends on the results of the runs alone.
    summary.md has the statistics. Every picture comes with a CSV of its numbers; one
    without data is left out. Raises StorageError if `out` cannot be written.
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


def report_failures(runs: pd.DataFrame, out: Path) -> None:
    """Write and print the report of runs of which none has finished."""
    table = failures(runs)
    write_text(out / "results.csv", results(runs).to_csv())
    write_text(out / "summary.md", f"# Comparison\n\n{table.markdown()}")
    Console(markup=False, highlight=False).print(table.rich())


def results(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of results.csv, which depend on no clock and no path."""
    metrics = [name for name in metric_columns(runs) if not name.endswith("seconds")]
    chosen = ["model", "data", "seed", "h", "alpha", *varied(runs)]
    table = runs[[*chosen, "state", "reason", "monitor", *metrics]]
    counts = [
        name
        for name in metrics
        if name.startswith(COUNTS) and (table[name].dropna() % 1 == 0).all()
    ]
    return table.astype(dict.fromkeys(counts, "Int64"))


def summary(
    comparison: Comparison, sources: Iterable[str | Path], made: Collection[str]
) -> str:
    """Return the text of summary.md: commands, tables, and links to the pictures."""
    finished = (comparison.runs["state"] == FINISHED).sum()
    parts = [
        "# Comparison\n",
        f"{len(comparison.runs)} jobs, {finished} finished. Settings are chosen by "
        f"{comparison.monitor}, differences and pictures are of {comparison.metric}. "
        "All rows are in [results.csv](results.csv).\n",
        "```bash\n" + "\n".join(commands(sources)) + "\n```\n",
    ]
    parts += [table(comparison).markdown() for table in (best, differences, settings)]
    parts += [failures(comparison.runs).markdown()]
    parts += ["## Pictures\n"]
    parts += [f"![{name}]({name}.png) ([numbers]({name}.csv))\n" for name in made]
    left_out = [name for name in NEEDS if name not in made]
    parts += [f"No {name}: it needs {NEEDS[name]}.\n" for name in left_out]
    return "\n".join(parts)
