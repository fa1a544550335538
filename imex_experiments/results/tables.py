"""The answer of a sweep in words: the same tables for summary.md and for the screen."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from shlex import quote

from rich.console import Console
from rich.table import Table

from imex_experiments.errors import CheckpointError
from imex_experiments.results.comparison import Comparison, Pair
from imex_experiments.results.jobs import is_sweep, sweep_words
from imex_experiments.results.statistics import Estimate, Group, Setting
from imex_experiments.runs.layout import OVERRIDES
from imex_experiments.runs.plain import read_yaml

Row = Mapping[str, str]
"""Column to text; a column that a row does not have is empty."""


@dataclass(frozen=True)
class TextTable:
    """A titled table with the sentence that says how to read it."""

    title: str
    note: str
    rows: Sequence[Row]

    @property
    def columns(self) -> list[str]:
        """Of all rows, in the order of their first appearance."""
        return list(dict.fromkeys(chain.from_iterable(self.rows)))

    def markdown(self) -> str:
        """The table in Markdown, or the note alone if there are no rows."""
        lines = [f"## {self.title}", "", self.note]
        if self.rows:
            lines += ["", _line(self.columns), _line(["---"] * len(self.columns))]
            lines += [_line(row.get(c, "") for c in self.columns) for row in self.rows]
        return "\n".join(lines) + "\n"

    def rich(self) -> Table:
        """The table for a terminal."""
        table = Table(title=self.title, caption=self.note, caption_justify="left")
        for column in self.columns:
            table.add_column(column, overflow="fold")
        for row in self.rows:
            table.add_row(*(row.get(column, "") for column in self.columns))
        return table


def show_answer(comparison: Comparison) -> None:
    """Print the best setting of each model, the paired differences and the failures."""
    console = Console(markup=False, highlight=False)  # [4,8] in a name is no markup
    for table in (best(comparison), differences(comparison), failures(comparison)):
        if table.rows:
            console.print(table.rich())


def best(comparison: Comparison) -> TextTable:
    """The setting that validation chooses for each network, with its cost."""
    note = (
        f"Chosen by the {_end(comparison)} mean of {comparison.monitor} over the seeds, "
        "among the settings with the most finished seeds; never on the test split."
    )
    rows = [_row(comparison, group, name) for name, group in comparison.best.items()]
    return TextTable("Best setting of each model", note, rows)


def settings(comparison: Comparison) -> TextTable:
    """Every setting with mean and standard deviation over its seeds."""
    note = (
        "Mean ± sample standard deviation over seeds, of the kept checkpoints. Repeats of a "
        "seed, such as those of an explicit model over alpha, are averaged first."
    )
    rows = [_row(comparison, g, g.setting.network) for g in comparison.groups]
    return TextTable("All settings", note, rows)


def differences(comparison: Comparison) -> TextTable:
    """Implicit minus explicit at equal settings and seeds."""
    sign = "positive" if comparison.higher_is_better() else "negative"
    note = (
        f"Implicit (alpha > 0) minus explicit (alpha = 0) in {comparison.metric}, same seed "
        f"and settings; {sign} favours the implicit one. An explicit model ignores alpha: "
        "its one run is the partner of every alpha. A row over several settings takes "
        "those that all seeds have and averages within each seed first: it counts seeds."
    )
    if not comparison.pairs:
        note = "None: no implicit and explicit runs have equal settings."
    rows = [_difference(comparison, pair) for pair in comparison.pairs]
    return TextTable("Paired differences", note, rows)


def failures(comparison: Comparison) -> TextTable:
    """The jobs without a result, and why."""
    rows = [
        {"run": job.run, "state": job.state, "reason": job.reason}
        for job in comparison.jobs
        if not job.finished
    ]
    note = (
        f"{len(rows)} of {len(comparison.jobs)} jobs have no result."
        if rows
        else "None."
    )
    return TextTable("Failures", note, rows)


def commands(sources: Iterable[str | Path]) -> list[str]:
    """The commands that made sweeps and runs, as far as their folders tell."""
    return [line for source in sources if (line := _command(Path(source)))]


def _command(source: Path) -> str | None:
    try:
        if not is_sweep(source):
            return _shell([], read_yaml(source / OVERRIDES))
        hydra, task = sweep_words(source)
    except (CheckpointError, TypeError):
        return None
    added = ("hydra.mode=", "hydra.job.config.override_dirname.", "hydra.sweep.")
    return _shell(["-m"], [*(w for w in hydra if not w.startswith(added)), *task])


def _shell(first: Sequence[str], words: Iterable[object]) -> str:
    return " ".join(["python train.py", *first, *(quote(str(word)) for word in words)])


def _row(comparison: Comparison, group: Group, network: str) -> Row:
    scores = dict.fromkeys((comparison.monitor, comparison.metric))
    asked = len({job.seed for job in group.jobs})
    known = len(group.by_seed(comparison.monitor))
    return {
        "model": network,
        **_setting(comparison, group.setting),
        **{name: spread(group.estimate(name)) for name in scores},
        "seeds": f"{known}" if known == asked else f"{known} of {asked}",
        "parameters": _mean(group, "parameters", 1, ".0f"),
        "MFLOP per image": _mean(group, "flops", 1e6, ".1f"),
        "seconds": _mean(group, "train_seconds", 1, ".1f"),
    }


def _difference(comparison: Comparison, pair: Pair) -> Row:
    difference = pair.difference
    row = {"difference": f"{pair.implicit} - {pair.explicit}"}
    if pair.setting is None:
        first = next(iter(_setting(comparison, comparison.groups[0].setting)), "over")
        row[first] = f"all {pair.settings} settings"
        if pair.complete < pair.settings:
            row[first] = f"{pair.complete} of {pair.settings} settings"
    else:
        row |= _setting(comparison, pair.setting)
    if difference is None:
        return row | {"mean": "no common seed" if pair.setting else "none complete"}
    interval = difference.interval
    ends = "none, one seed" if interval is None else " ... ".join(map(signed, interval))
    return row | {
        "mean": signed(difference.mean),
        "95 % interval": ends,
        "seeds": str(difference.n),
    }


def _setting(comparison: Comparison, setting: Setting) -> Row:
    """The parts of a setting that differ anywhere in the comparison."""
    every = [group.setting for group in comparison.groups]
    others = dict(setting.others)
    row = {key: others.get(key, "-") for s in every for key, _ in s.others}
    if len({s.h for s in every}) > 1:
        row["h"] = f"{setting.h:g}"
    if len({s.alpha for s in every}) > 1:
        row["alpha"] = f"{setting.alpha:g}"
    return row


def setting_name(comparison: Comparison, setting: Setting) -> str:
    """A setting in one short line: what differs, key=value."""
    return ", ".join(f"{k}={v}" for k, v in _setting(comparison, setting).items())


def spread(estimate: Estimate | None) -> str:
    """mean ± sd, without a sd for a single value."""
    if estimate is None:
        return "-"
    mean = f"{estimate.mean:.4f}"
    return mean if estimate.sd is None else f"{mean} ± {estimate.sd:.4f}"


def signed(value: float) -> str:
    return f"{value:+.4f}"


def _end(comparison: Comparison) -> str:
    return "highest" if comparison.mode == "max" else "lowest"


def _mean(group: Group, metric: str, unit: float, form: str) -> str:
    estimate = group.estimate(metric)
    return "-" if estimate is None else f"{estimate.mean / unit:{form}}"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
