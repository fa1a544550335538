"""The answer at the end of a sweep: results.csv, summary.md, and pictures with numbers."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from imex_experiments.errors import StorageError
from imex_experiments.files import write_table, write_text
from imex_experiments.results.comparison import Comparison, compare
from imex_experiments.results.figures import NEEDS, pictures
from imex_experiments.results.jobs import collect_jobs, result_rows
from imex_experiments.results.tables import (
    best,
    commands,
    differences,
    failures,
    settings,
)


def write_answer(
    sources: Sequence[str | Path], out: str | Path, metric: str | None = None
) -> Comparison:
    """Compare the jobs of sweeps and runs, and write what follows into the folder `out`.

    results.csv has one row per job and depends on the jobs' results alone; summary.md the
    statistics; every picture comes with a CSV of its numbers, and is left out where it has
    nothing to show. `metric` is by default the test score of the monitored metric.

    CheckpointError if a source is no run or sweep or nothing is finished, ConfigError for
    an unknown metric or runs of several tasks, StorageError if `out` cannot be written.
    """
    comparison = compare(collect_jobs(sources), metric)
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_table(folder / "results.csv", result_rows(comparison.jobs))
        made = pictures(comparison)
        for name, (figure, rows) in made.items():
            figure.savefig(folder / f"{name}.png", dpi=150)
            write_table(folder / f"{name}.csv", rows)
        write_text(folder / "summary.md", summary(comparison, sources, made))
    except OSError as error:
        raise StorageError(f"out={folder}: cannot be written ({error})") from error
    return comparison


def summary(
    comparison: Comparison, sources: Iterable[str | Path], made: Collection[str]
) -> str:
    """summary.md: commands, tables, and the pictures that were made."""
    finished = sum(job.finished for job in comparison.jobs)
    made_by = commands(sources)
    parts = [
        "# Comparison\n",
        f"{len(comparison.jobs)} jobs, {finished} finished. Settings are chosen by "
        f"{comparison.monitor}, differences and pictures are of {comparison.metric}. "
        "All rows are in [results.csv](results.csv).\n",
        "```bash\n" + "\n".join(made_by) + "\n```\n",
    ]
    tables = (best, differences, settings, failures)
    parts += [table(comparison).markdown() for table in tables]
    parts += ["## Pictures\n"]
    parts += [f"![{name}]({name}.png) ([numbers]({name}.csv))\n" for name in made]
    left_out = [name for name in NEEDS if name not in made]
    parts += [f"No {name}: it needs {NEEDS[name]}.\n" for name in left_out]
    return "\n".join(parts)
