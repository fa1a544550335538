"""Print and save the report of a run: its network, metrics, figures and next commands."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote

import pytorch_lightning as pl
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from imex_experiments.files import write_json
from imex_experiments.installed import command_line
from imex_experiments.networks.cost import count_flops, count_parameters, parts
from imex_experiments.process.rank import is_first_process
from imex_experiments.runs.layout import (
    FIGURES,
    METRICS,
    TENSORBOARD,
    resume_command,
)
from imex_experiments.tasks import Task


def show_network(
    network: nn.Module, image_shape: tuple[int, int, int]
) -> dict[str, int]:
    """Print the parts of a network with trained parameters and FLOPs; return the totals."""
    flops = count_flops(network, image_shape)
    counts = count_parameters(network)
    table = Table(
        title=f"{type(network).__name__} for images {'x'.join(map(str, image_shape))}"
    )
    table.add_column("part")
    table.add_column("kind")
    table.add_column("parameters", justify="right")
    table.add_column("MFLOP per image", justify="right")
    for name, part in parts(network).items():
        weights = sum(p.numel() for p in part.parameters() if p.requires_grad)
        table.add_row(
            name, type(part).__name__, f"{weights:,}", f"{flops[name] / 1e6:.2f}"
        )
    table.add_section()
    table.add_row("total", "", f"{counts['total']:,}", f"{flops['total'] / 1e6:.2f}")
    if is_first_process():
        Console().print(table)
    return {
        "parameters": counts["total"],
        "flops": flops["total"],
        **{f"parameters/{kind}": n for kind, n in counts.items() if kind != "total"},
    }


def save_results(
    folder: Path, trainer: pl.Trainer, metrics: Mapping[str, float]
) -> None:
    """Write metrics.json, and log the scores as scalars `best/val/*` and `test/*`."""
    write_json(folder / METRICS, dict(metrics))
    scalars = {
        f"best/{name}" if name.startswith("val/") else name: value
        for name, value in metrics.items()
        if name.startswith(("val/", "test/"))
    }
    for logger in trainer.loggers:
        logger.log_metrics(scalars, step=trainer.global_step)
        logger.finalize("success")


def show_metrics(metrics: Mapping[str, float], title: str = "kept checkpoint") -> None:
    """Print a table of validation and test scores, one metric a row."""
    names = [name.removeprefix("val/") for name in metrics if name.startswith("val/")]
    splits = [split for split in ("val", "test") if f"{split}/{names[0]}" in metrics]
    table = Table(title=title)
    table.add_column("metric")
    for split in splits:
        table.add_column(split, justify="right")
    for name in names:
        table.add_row(name, *(f"{metrics[f'{split}/{name}']:.4f}" for split in splits))
    Console().print(table)


def show_next_commands(run: Path, more: Sequence[str] = ()) -> None:
    """Print the commands that evaluate, use, show and resume a finished run.

    `more` are arguments that they need, such as allow=[my_package].
    """
    run = Path(os.path.relpath(run))
    where = quote(str(run))
    allow = "".join(f" {quote(word)}" for word in more if not word.startswith("-"))
    dashboards = f"dashboards  tensorboard --logdir {quote(str(run.parent.parent))}\n"
    Console().print(
        f"\nresults     {where}/{METRICS}, figures in {where}/{FIGURES}/\n"
        f"evaluate    {command_line('evaluate')} run={where}{allow}\n"
        f"predict     {command_line('predict')} run={where} images=<folder> out=<folder>"
        f"{allow}\n"
        f"{dashboards if (run / TENSORBOARD).is_dir() else ''}"
        f"resume      {resume_command(run, more)}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def save_figures(task: Task, samples: Sequence[Tensor], folder: Path) -> None:
    """Write the figures of a task for some samples as PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, sheet in task.figures(*samples).items():
        Image.fromarray(sheet).save(folder / f"{name}.png")
