"""Write a page that compares the published experiments with our runs."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from imex_experiments.files import write_text
from imex_experiments.installed import command_line
from imex_experiments.plots.sweep import cost_figure, learning_curves_figure
from imex_experiments.results.comparison import Comparison, compare
from imex_experiments.results.figures import Picture, curves
from imex_experiments.results.published import PARTS, TARGETS, Sweep
from imex_experiments.results.sources import commands, is_sweep
from imex_experiments.results.table import FINISHED, runs_table
from imex_experiments.results.text_tables import (
    TextTable,
    failures,
    mean,
    network_names,
    setting_names,
    spread,
)
from imex_experiments.runs.status import read_status

HEAD = f"""# The published experiments

This page is written by `{command_line("reproduce")}`. Each command can be stopped with
Ctrl-C and given again: it continues, and finished runs are not repeated. Overrides of a
training may be added: `trainer=gpu speed=mixed`, or `check=true` for an estimate of the cost.
At the published size an epoch takes minutes on a CPU, so use a GPU. With
`hydra.launcher.n_jobs=4` four runs share one, or take turns on several.

```bash
{command_line("reproduce")} table1
{command_line("reproduce")} smallest
{command_line("reproduce")} nyu path=<nyu_depth_v2_labeled.mat>
{command_line("reproduce")} all run=false page=<file>.md
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
So a network that has learned to distinguish any classes must score more than 2/3. The
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
"""Monitored metric -> column of the table -> metric."""

CURVE = {"val/miou": "val/published_iou"}
"""Monitored metric -> metric of the curves, if it is another one."""

NOT_RUN = {
    "table1": "Not run: it needs a GPU.",
    "nyu": "Not run: it needs the published file, and wants a GPU.",
    "smallest": "Not run: it takes about an hour on two cores.",
}


def write_page(page: Path, out: Path) -> None:
    """Write one page on all parts, from the runs in `out`; name the parts without runs.

    Figures and their numbers are written to `figures` beside the page.
    """
    figures = page.parent / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    sections = [HEAD]
    for part, sweeps in PARTS.items():
        for sweep in sweeps:
            sections += _section(part, sweep, out / part / sweep.name, figures)
    write_text(page, "\n".join(sections))


def _section(part: str, sweep: Sweep, folder: Path, figures: Path) -> list[str]:
    """Return the sections of the page on a sweep, and draw its figure."""
    if not is_sweep(folder) or not any(folder.rglob("metrics.json")):
        note = f"{NOT_RUN[part]} Part `{part}`, with `{' '.join(sweep.overrides)}`."
        return [TextTable(sweep.title, note).markdown()]
    comparison = compare(runs_table(folder))
    note = f"{provenance(comparison)} Made by `{commands([folder])[0]}`."
    sections = [TextTable(sweep.title, note, scores(comparison, sweep)).markdown()]
    if part == "smallest":
        sections.append(smallest(comparison))
        figure, numbers = size_picture(comparison)
    else:
        figure, numbers = curves_picture(comparison, sweep)
    name = f"reproduction_{part}_{sweep.name}"
    figure.savefig(figures / f"{name}.png", dpi=150)
    write_text(figures / f"{name}.csv", numbers.to_csv(index=False))
    sections.append(
        f"![{sweep.title}](figures/{name}.png) ([numbers](figures/{name}.csv))\n"
    )
    lost = failures(comparison.runs)
    if len(lost.cells):
        reasons = map(
            "`{run}` {state}: {reason}.".format_map, lost.cells.to_dict("records")
        )
        sections.append(f"{lost.note} {' '.join(reasons)}\n")
    return sections


def scores(comparison: Comparison, sweep: Sweep) -> pd.DataFrame:
    """Return one row per network and setting, with published and measured numbers."""
    published = [sweep.published.get(model) for model in comparison.settings["model"]]
    cells = pd.DataFrame({"network": network_names(comparison)})
    if any(known.score is not None for known in sweep.published.values()):
        cells["published"] = [
            f"{known.score:.3f}" if known and known.score else "" for known in published
        ]
    for column, metric in SCORES[comparison.monitor].items():
        cells[column] = spread(comparison, metric)
    cells["parameters"] = mean(comparison, "parameters", "{:,.0f}")
    if sweep.published:
        cells["published parameters"] = [
            f"{known.parameters:,}" if known else "" for known in published
        ]
    cells["seconds"] = mean(comparison, "train_seconds", "{:.0f}")
    cells["seeds"] = comparison.estimate(comparison.monitor)["seeds"].map(str)
    return cells


def provenance(comparison: Comparison) -> str:
    """Return a sentence with seeds, device, commit and versions of the finished runs."""
    done = comparison.runs[comparison.runs["state"] == FINISHED]
    statuses = [read_status(Path(folder)) for folder in done["folder"]]
    return (
        f"Seeds {_list(done['seed'])}; {_list(s['device'] for s in statuses)}; "
        f"commit {_list(str(s['git_commit'])[:9] for s in statuses)}; "
        f"torch {_list(s['versions']['torch'] for s in statuses)}."
    )


def smallest(comparison: Comparison) -> str:
    """Return a list of the smallest network whose mean reaches each target on validation."""
    cells = pd.DataFrame({"name": setting_names(comparison)})
    cells["weights"] = mean(comparison, "parameters", "{:,.0f}")
    cells["val"] = spread(comparison, comparison.monitor)
    cells["test"] = spread(comparison, comparison.metric)
    estimate = comparison.estimate(comparison.monitor)
    sizes = comparison.estimate("parameters")["mean"]
    lines = []
    for target in TARGETS:
        reached = sizes[(estimate["mean"] >= target) & (estimate["lost"] == 0)]
        if reached.empty:
            lines.append(f"- mIoU {target}: none of these networks reaches it.")
        else:
            best = cells.loc[reached.idxmin()]
            lines.append(
                f"- mIoU {target}: {best['weights']} weights (`{best['name']}`), "
                f"{best['val']} on validation, {best['test']} on the test split."
            )
    head = (
        "The smallest network whose mean over all seeds reaches it on validation:\n\n"
    )
    return head + "\n".join(lines) + "\n"


def curves_picture(comparison: Comparison, sweep: Sweep) -> Picture:
    """Draw the validation score over the epochs, with the published scores as lines."""
    metric = CURVE.get(comparison.monitor, comparison.monitor)
    numbers = curves(comparison, network_names(comparison), metric)
    levels = {
        f"published, {network}": known.score
        for network, known in sweep.published.items()
        if known.score is not None
    }
    return learning_curves_figure(numbers, metric, levels), numbers


def size_picture(comparison: Comparison) -> Picture:
    """Draw the score over the number of weights, with the targets as lines."""
    estimate = comparison.estimate(comparison.metric)[["mean", "sd", "seeds"]]
    numbers = pd.DataFrame({"setting": setting_names(comparison)})
    numbers["parameters"] = comparison.estimate("parameters")["mean"]
    numbers = numbers.join(estimate)[estimate["seeds"] > 0]
    label = "trainable weights"
    points = numbers.rename(columns={"parameters": label})
    points["model"] = comparison.settings["model"]
    levels = {f"mIoU {target}": target for target in TARGETS}
    return cost_figure(points, [label], comparison.metric, True, levels), numbers


def _list(values: Iterable[object]) -> str:
    """Return the distinct values in order, separated by commas."""
    return ", ".join(sorted(set(map(str, values))))
