"""Make the text tables of a comparison, for summary.md and for the terminal."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import isnan

import pandas as pd
from rich.console import Console
from rich.table import Table

from imex_experiments.results.comparison import Comparison
from imex_experiments.results.table import FINISHED


@dataclass(frozen=True)
class TextTable:
    """A table of text with a title and a note on how to read it."""

    title: str
    note: str
    cells: pd.DataFrame = field(default_factory=pd.DataFrame)

    def markdown(self) -> str:
        """Return the table in Markdown, or the note alone if there are no rows."""
        lines = [f"## {self.title}", "", self.note]
        if len(self.cells):
            columns = list(self.cells)
            lines += ["", _line(columns), _line(["---"] * len(columns))]
            lines += map(_line, self.cells.itertuples(index=False, name=None))
        return "\n".join(lines) + "\n"

    def rich(self) -> Table:
        """Return the table for a terminal."""
        table = Table(title=self.title, caption=self.note, caption_justify="left")
        for column in self.cells:
            table.add_column(column, overflow="fold")
        for row in self.cells.itertuples(index=False, name=None):
            table.add_row(*row)
        return table


def print_report(comparison: Comparison) -> None:
    """Print tables of the best settings, the paired differences and the failures."""
    console = Console(markup=False, highlight=False)  # a name may hold [4,8]
    tables = (best(comparison), differences(comparison), failures(comparison.runs))
    for table in tables:
        if len(table.cells):
            console.print(table.rich())


def best(comparison: Comparison) -> TextTable:
    """Return the setting of each network that is best on validation, with its cost."""
    end = "highest" if comparison.mode == "max" else "lowest"
    note = (
        f"Chosen by the {end} mean of {comparison.monitor} over the seeds, "
        "among the settings with the most finished seeds; never on the test split."
    )
    cells = settings(comparison).cells.loc[comparison.best]
    return TextTable("Best setting of each model", note, cells)


def settings(comparison: Comparison) -> TextTable:
    """Return the scores of every setting, mean and deviation over seeds, and its cost."""
    note = (
        "Mean ± sample standard deviation over seeds, of the kept checkpoints. Repeats of a "
        "seed, such as those of an explicit model over alpha, are averaged first."
    )
    cells = comparison.settings[["model"]].join(shown(comparison))
    for metric in (comparison.monitor, comparison.metric):
        cells[metric] = spread(comparison, metric)
    groups = comparison.runs["seed"].groupby(comparison.setting)
    cells["seeds"] = [
        f"{known}" if known == wanted else f"{known} of {wanted}"
        for known, wanted in zip(
            comparison.estimate(comparison.monitor)["seeds"],
            groups.nunique(),
            strict=True,
        )
    ]
    cells["parameters"] = mean(comparison, "parameters", "{:.0f}")
    cells["MFLOP per image"] = mean(comparison, "flops", "{:.1f}", unit=1e6)
    cells["seconds"] = mean(comparison, "train_seconds", "{:.1f}")
    return TextTable("All settings", note, cells)


def differences(comparison: Comparison) -> TextTable:
    """Return implicit minus explicit scores at equal settings and seeds."""
    sign = "positive" if comparison.higher_is_better else "negative"
    note = (
        f"Implicit (alpha > 0) minus explicit (alpha = 0) in {comparison.metric}, same seed "
        f"and settings; {sign} favours the implicit one. An explicit model ignores alpha: "
        "its one run is the partner of every alpha. A row over several settings uses those "
        "with a result for every seed; differences are averaged per seed, and mean and "
        "interval are over the seeds."
    )
    if comparison.pairs.empty:
        note = "None: no implicit and explicit runs have equal settings."
    names = shown(comparison)
    rows = []
    for pair in comparison.pairs.itertuples():
        row = {"difference": f"{pair.implicit} - {pair.explicit}"}
        if pair.setting is not pd.NA:
            row |= names.loc[pair.setting].to_dict()
        else:
            counted = f"{pair.complete} of" if pair.complete < pair.settings else "all"
            row[names.columns[0]] = f"{counted} {pair.settings} settings"
        if pair.seeds:
            ends = f"{pair.low:+.4f} ... {pair.high:+.4f}"
            row["mean"] = f"{pair.mean:+.4f}"
            row["95 % interval"] = ends if pair.seeds > 1 else "none, one seed"
            row["seeds"] = str(pair.seeds)
        else:
            one = pair.setting is not pd.NA
            row["mean"] = "no common seed" if one else "none complete"
        rows.append(row)
    return TextTable("Paired differences", note, pd.DataFrame(rows).fillna(""))


def failures(runs: pd.DataFrame) -> TextTable:
    """Return the runs of a table without a result, with the reason."""
    lost = runs.loc[runs["state"] != FINISHED, ["state", "reason"]].reset_index()
    note = f"{len(lost)} of {len(runs)} jobs have no result." if len(lost) else "None."
    return TextTable("Failures", note, lost)


def shown(comparison: Comparison) -> pd.DataFrame:
    """Return, as text, the values of each setting that differ between settings."""
    settings = comparison.settings
    parts = settings.drop(columns=["model", "h", "alpha"])
    for name in ("h", "alpha"):
        if settings[name].nunique() > 1:
            parts[name] = ["-" if isnan(x) else f"{x:g}" for x in settings[name]]
    return parts


def setting_names(comparison: Comparison) -> pd.Series:
    """Return a name for each setting: its differing values as key=value."""
    parts = shown(comparison)
    lines = [
        ", ".join(f"{key}={value}" for key, value in row.items())
        for _, row in parts.iterrows()
    ]
    return pd.Series(lines, index=parts.index, dtype=object)


def network_names(comparison: Comparison) -> pd.Series:
    """Return a name for each setting: its model, and its differing values."""
    names = setting_names(comparison)
    return comparison.settings["model"] + (", " + names).where(names != "", "")


def spread(comparison: Comparison, metric: str) -> list[str]:
    """Return mean ± sd of a metric for every setting; a single value has no sd."""
    estimate = comparison.estimate(metric)
    deviations = ["" if isnan(sd) else f" ± {sd:.4f}" for sd in estimate["sd"]]
    means = _written(estimate["mean"], "{:.4f}")
    return [value + sd for value, sd in zip(means, deviations, strict=True)]


def mean(
    comparison: Comparison, metric: str, form: str, unit: float = 1.0
) -> list[str]:
    """Return the mean of a metric, divided by `unit`, for every setting; "-" if none."""
    return _written(comparison.estimate(metric)["mean"] / unit, form)


def _written(means: Iterable[float], form: str) -> list[str]:
    return ["-" if isnan(value) else form.format(value) for value in means]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
