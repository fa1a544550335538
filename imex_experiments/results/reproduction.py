"""A page on the published experiments: published numbers beside ours, curves, provenance."""

from collections.abc import Iterable, Mapping, Sequence
from math import nan
from pathlib import Path
from typing import Any

from imex_experiments.files import write_table, write_text
from imex_experiments.plots.sweep import Point, cost_figure, learning_curves_figure
from imex_experiments.results.comparison import Comparison, compare
from imex_experiments.results.figures import Picture, curve_bands
from imex_experiments.results.jobs import collect_jobs, is_sweep
from imex_experiments.results.published import PARTS, TARGETS, Sweep
from imex_experiments.results.statistics import Group
from imex_experiments.results.tables import (
    TextTable,
    commands,
    failures,
    setting_name,
    spread,
)
from imex_experiments.runs.status import read_status

HEAD = """# The published experiments

This page is written by `scripts/reproduce.py`. Each command can be stopped with Ctrl-C and
given again: it goes on where it was, and finished runs are not repeated. Words of `train.py`
may be added: `trainer=gpu speed=mixed`, or `check=true` to be told what it costs. At the
published size an epoch takes minutes on a CPU: it wants a GPU. With `hydra/launcher=ray_gpu
hydra.launcher.ray.remote.num_gpus=0.25` four runs share one.

```bash
python scripts/reproduce.py table1
python scripts/reproduce.py smallest
python scripts/reproduce.py nyu path=<nyu_depth_v2_labeled.mat>
python scripts/reproduce.py all run=false page=<file>.md
```

Scores are of the kept checkpoint (best on validation), mean ± standard deviation over the
seeds; the images are the same for all seeds. `published` is what the paper gives.

## The published IoU

The paper's IoU is, per image, the sum of the bitwise AND of the two label images over the sum
of their bitwise OR. Labels are 0 to 3, and 1 and 3, or 2 and 3, share a bit. A network that
finds every object and calls all of them by one class therefore scores

| called | classes equally frequent | our validation split | our test split |
|---|---|---|---|
| 1, white-white | 4/9 = 0.444 | 0.505 | 0.419 |
| 2, white-black | 5/9 = 0.556 | 0.495 | 0.581 |
| 3, black-black | 2/3 = 0.667 | 0.672 | 0.654 |

where the standard object IoU is 1/9 with equally frequent classes of equal area, and mIoU 1/3.
So 2/3 is the floor: what a network has to be above before it has told any class apart. The
published ResNet has 0.741. An image in which there is no object and none is found counts as 1.
"""

SCORES: Mapping[str, Mapping[str, str]] = {
    "val/miou": {
        "published IoU, val": "val/published_iou",
        "published IoU, test": "test/published_iou",
        "mIoU, test": "test/miou",
        "object IoU, test": "test/object_iou",
        "loss, test": "test/loss",
        "accuracy, test": "test/accuracy",
    },
    "val/rmse": {
        "RMSE, val [m]": "val/rmse",
        "misfit, val [m²]": "val/misfit",
        "misfit, test [m²]": "test/misfit",
        "RMSE, test [m]": "test/rmse",
    },
}
"""Monitored metric -> columns of a table and the metrics in them."""

CURVE = {"val/miou": "val/published_iou"}
"""Monitored metric -> what its curves show, where that is something else."""

NOT_RUN = {
    "table1": "Not run: it needs a GPU.",
    "nyu": "Not run: it needs the published file, and wants a GPU.",
    "smallest": "Not run: it takes about an hour on two cores.",
}


def write_page(page: Path, out: Path) -> None:
    """All parts on one page, from the runs in `out`; what was not run is said.

    Figures and their numbers go to `figures` beside the page.
    """
    figures = page.parent / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    sections = [HEAD]
    for part, sweeps in PARTS.items():
        for sweep in sweeps:
            folder = out / part / sweep.name
            comparison = _finished(folder)
            if comparison is None:
                words = " ".join(sweep.words)
                note = f"{NOT_RUN[part]} Part `{part}`, with `{words}`."
                sections.append(TextTable(sweep.title, note, []).markdown())
                continue
            note = f"{provenance(comparison)} Made by `{commands([folder])[0]}`."
            sections.append(
                TextTable(sweep.title, note, rows(comparison, sweep)).markdown()
            )
            if part == "smallest":
                sections.append(smallest(comparison))
                picture = size_picture(comparison)
            else:
                picture = curves_picture(comparison, sweep)
            name = f"reproduction_{part}_{sweep.name}"
            figure, numbers = picture
            figure.savefig(figures / f"{name}.png", dpi=150)
            write_table(figures / f"{name}.csv", numbers)
            sections.append(
                f"![{sweep.title}](figures/{name}.png) ([numbers](figures/{name}.csv))\n"
            )
            if lost := failures(comparison).rows:
                sections.append(f"{failures(comparison).note} {_reasons(lost)}\n")
    write_text(page, "\n".join(sections))


def rows(comparison: Comparison, sweep: Sweep) -> list[dict[str, str]]:
    """One per network and setting: the published numbers, then ours."""
    return [_row(comparison, sweep, group) for group in comparison.groups]


def provenance(comparison: Comparison) -> str:
    """Seeds, device, commit and versions of the finished runs."""
    done = [job for job in comparison.jobs if job.finished]
    told = [read_status(job.folder) for job in done]
    seeds = sorted({job.seed for job in done if job.seed is not None})
    return (
        f"Seeds {_list(seeds)}; {_list(_of(told, 'device'))}; "
        f"commit {_list(str(c)[:9] for c in _of(told, 'git_commit'))}; "
        f"torch {_list({str(t['versions']['torch']) for t in told})}."
    )


def smallest(comparison: Comparison) -> str:
    """For each target the smallest network whose mean validation score reaches it."""
    lines = []
    for target in TARGETS:
        reached = [
            group
            for group in comparison.groups
            if (score := group.estimate(comparison.monitor))
            and score.mean >= target
            and not group.lost(comparison.monitor)
        ]
        best = min(reached, key=_parameters, default=None)
        if best is None:
            lines.append(f"- mIoU {target}: none of these networks reaches it.")
        else:
            lines.append(
                f"- mIoU {target}: {_parameters(best):,.0f} weights "
                f"(`{setting_name(comparison, best.setting)}`), "
                f"{spread(best.estimate(comparison.monitor))} on validation, "
                f"{spread(best.estimate(comparison.metric))} on the test split."
            )
    head = (
        "The smallest network whose mean over all seeds reaches it on validation:\n\n"
    )
    return head + "\n".join(lines) + "\n"


def curves_picture(comparison: Comparison, sweep: Sweep) -> Picture:
    """Validation over the epochs, a band per network, the published scores across."""
    metric = CURVE.get(comparison.monitor, comparison.monitor)
    named = {_name(comparison, group): group for group in comparison.groups}
    bands, numbers = curve_bands(named, metric)
    levels = {
        f"published, {network}": told.score
        for network, told in sweep.published.items()
        if told.score is not None
    }
    return learning_curves_figure(bands, metric, levels), numbers


def size_picture(comparison: Comparison) -> Picture:
    """The score over the weights, with the targets."""
    points, numbers = [], []
    for group in comparison.groups:
        if score := group.estimate(comparison.metric):
            size, sd = _parameters(group), nan if score.sd is None else score.sd
            cost = {"trainable weights": size}
            points.append(Point(group.setting.network, cost, score.mean, sd))
            name = setting_name(comparison, group.setting)
            numbers.append(
                {"setting": name, "parameters": size, "mean": score.mean, "sd": sd}
                | {"seeds": score.n}
            )
    levels = {f"mIoU {target}": target for target in TARGETS}
    return cost_figure(points, comparison.metric, True, levels), numbers


def _finished(folder: Path) -> Comparison | None:
    """The jobs of a sweep; None if none of them has a result."""
    if not is_sweep(folder) or not any(folder.rglob("metrics.json")):
        return None
    return compare(collect_jobs([folder]))


def _row(comparison: Comparison, sweep: Sweep, group: Group) -> dict[str, str]:
    told = sweep.published.get(group.setting.network)
    row = {"network": _name(comparison, group)}
    if any(known.score is not None for known in sweep.published.values()):
        row["published"] = f"{told.score:.3f}" if told and told.score else ""
    for column, metric in SCORES[comparison.monitor].items():
        row[column] = spread(group.estimate(metric))
    row["parameters"] = f"{_parameters(group):,.0f}"
    if sweep.published:
        row["published parameters"] = f"{told.parameters:,}" if told else ""
    seconds = group.estimate("train_seconds")
    row["seconds"] = f"{seconds.mean:.0f}" if seconds else "-"
    row["seeds"] = str(len(group.by_seed(comparison.monitor)))
    return row


def _name(comparison: Comparison, group: Group) -> str:
    setting = setting_name(comparison, group.setting)
    return f"{group.setting.network}, {setting}" if setting else group.setting.network


def _parameters(group: Group) -> float:
    size = group.estimate("parameters")
    return size.mean if size else nan


def _reasons(lost: Sequence[Mapping[str, str]]) -> str:
    return " ".join(f"`{row['run']}` {row['state']}: {row['reason']}." for row in lost)


def _of(told: Sequence[Mapping[str, Any]], key: str) -> set[Any]:
    return {status[key] for status in told}


def _list(values: Iterable[object]) -> str:
    return ", ".join(sorted(map(str, values)))
