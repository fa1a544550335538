"""Write what `gpu_check.py` has found as a page of Markdown.

`python scripts/maintenance/gpu_page.py results=<folder>/gpu.json page=docs/gpu.md` makes the
page again, without a device; `notes` in the JSON are lines for its head.
"""

from imex_experiments.process.interrupts import end_at_once

if __name__ == "__main__":
    end_at_once()  # until the imports are done, which takes seconds

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from imex_experiments.config.arguments import parse_arguments
from imex_experiments.errors import ConfigError
from imex_experiments.files import write_text
from imex_experiments.process.command import run_command
from imex_experiments.results.published import PARTS

TITLES = {
    "machine": "Machine",
    "correctness": "Every backend against float64",
    "benchmark": "The implicit step beside the layers around it",
    "main": "The main job",
    "speeds": "The published IMEXnet, steps per second",
    "table1": "Table 1 at the published size",
}

UNTOLD = ("seconds", "exit", "said")
"""Keys of every step besides its findings."""

COPY = "copy_bytes_per_second"


def page(results: Mapping[str, Any]) -> str:
    """Return the page; a step that is missing or failed says so."""
    machine = results.get("machine", {})
    parts = [
        "# On a GPU",
        "Made by `make gpu-check` on "
        f"{machine.get('device', 'an unknown device')}, {machine.get('date', '')}.",
    ]
    parts += results.get("notes", [])
    for name, found in results.items():
        if name == "notes":
            continue
        parts.append(f"## {TITLES[name]}")
        try:
            parts += SECTIONS[name](found)
        except (KeyError, TypeError, ValueError, IndexError) as missing:
            parts.append(f"Not complete ({type(missing).__name__}: {missing}).")
        if found.get("exit"):
            parts.append(f"Ended with exit code {found['exit']}: `{said(found)}`")
    return "\n\n".join(parts) + "\n"


def said(found: Mapping[str, Any]) -> str:
    """Return the last line of what a failed process printed."""
    lines = str(found.get("said", "")).strip().splitlines()
    return lines[-1].replace("`", "'") if lines else "nothing"


def table(head: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def machine_section(found: Mapping[str, Any]) -> list[str]:
    speeds = {COPY: (1e9, "GB/s"), "bfloat16_flops_per_second": (1e12, "TFLOP/s")}
    rows = []
    for key, value in found.items():
        if key in UNTOLD:
            continue
        if key in speeds:
            scale, unit = speeds[key]
            value = f"{value / scale:,.0f} {unit}"
        rows.append((key.replace("_per_second", "").replace("_", " "), value))
    return [table(("what", "value"), rows)]


def correctness_section(found: Mapping[str, Any]) -> list[str]:
    """Give the largest error over all sizes, per backend and dtype."""
    columns = ("y", "x", "taps", "second")
    rows = []
    for backend in ("fft", "gemm", "fused"):
        for dtype in ("float32", "bfloat16", "float16"):
            mine = [
                row
                for row in found["errors"]
                if (row["backend"], row["dtype"]) == (backend, dtype)
            ]
            failed = [row for row in mine if "failed" in row]
            good = [row for row in mine if "failed" not in row]
            worst = [
                f"{max(row[c] for row in good):.1e}" if good else "" for c in columns
            ]
            what = "; ".join(f"{row['size']}: {row['failed'][:80]}" for row in failed)
            rows.append((backend, dtype, *worst, what))
    same = {k: v for k, v in found.items() if ", " in k}
    return [
        "Relative errors, the largest over all sizes: of S x, of the gradients of x and of "
        "the taps, of a second derivative."
        + (f" Left out: {left}." if (left := found.get("sizes left out")) else ""),
        table(("backend", "dtype", *columns, "failed"), rows),
        "Largest differences to a plain run in float32, relative to the largest value:",
        table(
            ("what changes", "difference"),
            [(k, v if isinstance(v, str) else f"{v:.1e}") for k, v in same.items()],
        ),
    ]


def benchmark_section(found: Mapping[str, Any]) -> list[str]:
    parts = []
    for way, results in found.items():
        if way in UNTOLD:
            continue
        if not isinstance(results, Mapping):
            parts.append(f"{way}: {results}.")
            continue
        for direction in ("forward", "forward and backward"):
            shapes = results["shapes"]
            rows = []
            for name in shapes[0][direction]:
                row = [name]
                for shape in shapes:
                    timing, base = (
                        shape[direction][name],
                        shape[direction]["ResNet block"],
                    )
                    ratio = timing["median"] / base["median"]
                    row.append(f"{1e3 * timing['median']:.3f} ({ratio:.2f})")
                rows.append(row)
            head = (
                f"{way}: {direction}",
                *("x".join(map(str, s["shape"])) for s in shapes),
            )
            parts.append(table(head, rows))
        parts += [solves(way, results), fastest(results["backends"])]
    return ["Milliseconds, and the ratio to the ResNet block.", *parts]


def solves(way: str, results: Mapping[str, Any]) -> str:
    """Give errors, the share of a copy's speed and the gain over Algorithm 1."""
    rows = []
    for shape in results["shapes"]:
        forward = shape["forward"]
        for name, error in shape["errors"].items():
            printed = forward.get("Algorithm 1", {}).get("median")
            rows.append(
                (
                    "x".join(map(str, shape["shape"])),
                    name,
                    f"{error:.1e}",
                    f"{100 * forward[name].get('share_of_copy', float('nan')):.0f} %",
                    f"{printed / forward[name]['median']:.1f}" if printed else "",
                )
            )
    return table(
        (way, "solve", "relative error", "speed of a copy", "x Algorithm 1"), rows
    )


def fastest(rows: Iterable[Mapping[str, Any]]) -> str:
    """Give the milliseconds of a forward solve per boundary, side and backend."""
    lines = []
    for row in rows:
        times = {k: v["median"] for k, v in row.items() if isinstance(v, Mapping)}
        each = ", ".join(f"{name} {1e3 * t:.3f}" for name, t in times.items())
        lines.append(
            (row["boundary"], row["side"], each, min(times, key=times.__getitem__))
        )
    return table(("boundary", "side", "milliseconds", "fastest"), lines)


def runs_section(found: Mapping[str, Any]) -> list[str]:
    rows = []
    for name, run in found.items():
        if not isinstance(run, Mapping):
            continue
        metrics = run.get("metrics", {})
        last = run["rows"][-1] if run["rows"] else {}
        per_second = run.get("steps_per_second")
        rows.append(
            (
                name,
                f"{last.get('epoch', 0):.0f}",
                f"{per_second:.1f}" if per_second else "",
                f"{last.get('seconds', 0):.1f}",
                *(
                    f"{metrics[key]:.4f}"
                    if key in metrics
                    else f"{last.get(key, 0):.4f}*"
                    for key in ("val/miou", "val/published_iou")
                ),
                f"{metrics['test/miou']:.4f}" if "test/miou" in metrics else "",
                f"{metrics['test/published_iou']:.4f}" if metrics else "",
                "" if run["exit"] == 0 else f"exit {run['exit']}: {said(run)}",
            )
        )
    head = (
        *("run", "epochs", "steps/s", "seconds", "val mIoU", "val published IoU"),
        *("test mIoU", "test published IoU", ""),
    )
    return [
        table(head, rows),
        "\\* of the last validation of a run that has not ended.",
    ]


def table1_section(found: Mapping[str, Any]) -> list[str]:
    published = PARTS["table1"][0].published
    scores = ", ".join(f"{k} {v.score}" for k, v in published.items())
    return [*runs_section(found), f"Published: {scores}."]


SECTIONS = {
    "machine": machine_section,
    "correctness": correctness_section,
    "benchmark": benchmark_section,
    "main": runs_section,
    "speeds": runs_section,
    "table1": table1_section,
}


@dataclass
class Arguments:
    results: str = MISSING
    page: str = MISSING


def main() -> None:
    args = parse_arguments(Arguments)
    try:
        results = json.loads(Path(args.results).read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"results={args.results}: not readable ({error})") from error
    write_text(Path(args.page), page(results))


if __name__ == "__main__":
    run_command(main)
