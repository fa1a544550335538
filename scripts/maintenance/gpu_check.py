"""Check and measure everything that needs a GPU, in a few minutes: `make gpu-check`.

`python scripts/maintenance/gpu_check.py out=<folder> minutes=9` runs, in this order,
`machine` (versions, speed of a copy and of a product of matrices), `correctness` (every
backend against float64), `benchmark` (blocks and solves, and which backend is the
fastest), `main` (the main job as it is, in mixed precision and with CUDA graphs), `speeds`
(steps per second of the published network) and `table1` (both published networks side by
side, as many of 200 epochs as there is time for). `steps=[machine,table1]` takes some.

Each step is a process of its own within its share of the minutes: one that fails, hangs or
breaks the device is reported, and the next one begins. <folder>/gpu.json and gpu.md are
written after every step. `resume=<folder of an earlier call>` goes on with the runs of
`table1` there. `device=cpu` rehearses all of it in miniature without a GPU.
"""

from imex_experiments.process.interrupts import end_at_once

if __name__ == "__main__":
    end_at_once()  # until the imports are done, which takes seconds

import csv
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import torch
from gpu_page import page
from omegaconf import MISSING
from torch import Tensor

from imex_experiments.config.arguments import parse_arguments
from imex_experiments.errors import ConfigError, nearest
from imex_experiments.files import write_json, write_text
from imex_experiments.process.command import run_command
from imex_experiments.runs.layout import METRICS
from imex_experiments.terms import ImplicitConv2d

ROOT = Path(__file__).parents[2]

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

LIMITS = {"float32": 2e-6, "bfloat16": 5e-3, "float16": 1e-3}
"""The largest relative error of a result: a few roundings of its dtype."""

SIZES = [
    (64, 64),
    (32, 32),
    (32, 64),
    (64, 32),
    (128, 128),
    (48, 80),
    (67, 64),
    (17, 31),
    (240, 320),
    (5, 7),
]
SMALL_SIZES = [(32, 32)]

GRACE = 20.0
"""Seconds that an interrupted training has to save its checkpoint."""


@dataclass
class Arguments:
    out: str = MISSING
    minutes: float = 9.0
    device: str = "cuda"  # or cpu, a rehearsal in miniature
    steps: list[str] = field(default_factory=lambda: list(SHARES))
    resume: str | None = None  # the folder of an earlier call
    only: str | None = None  # a step to run in this process, as the command itself asks


SHARES: dict[str, int] = {
    "machine": 1,
    "correctness": 5,
    "benchmark": 6,
    "main": 5,
    "speeds": 3,
    "table1": 20,
}
"""The steps, and how they share the minutes; what one leaves is for those behind it."""


def measure_machine(args: Arguments, until: float) -> Iterator[tuple[str, Any]]:
    """Tell versions, and the speed of a copy (bytes read and written) and of a product."""
    import pytorch_lightning
    import triton

    yield "date", date.today().isoformat()
    yield "python", platform.python_version()
    yield "torch", torch.__version__
    yield "triton", triton.__version__
    yield "lightning", pytorch_lightning.__version__
    if args.device == "cuda":
        yield "device", torch.cuda.get_device_name()
        properties = torch.cuda.get_device_properties(0)
        yield "multiprocessors", properties.multi_processor_count
    else:
        yield "device", platform.processor() or "cpu"
    small = args.device == "cpu"
    x = torch.randn(2**20 if small else 2**28, device=args.device)
    seconds = seconds_of(x.clone, args.device)
    yield "copy_bytes_per_second", 2 * x.numel() * x.element_size() / seconds
    n = 256 if small else 8192
    a, b = (torch.randn(n, n, device=args.device).bfloat16() for _ in range(2))
    yield "bfloat16_flops_per_second", 2 * n**3 / seconds_of(lambda: a @ b, args.device)


def seconds_of(job: Callable[[], object], device: str, runs: int = 10) -> float:
    """Return the mean seconds of a job after three runs that do not count."""
    for _ in range(3):
        job()
    wait(device)
    begun = time.perf_counter()
    for _ in range(runs):
        job()
    wait(device)
    return (time.perf_counter() - begun) / runs


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def check_correctness(args: Arguments, until: float) -> Iterator[tuple[str, Any]]:
    """Compare results and gradients of every backend with float64, at all sizes.

    A row is backend, dtype, size and the relative errors of y = S x, of the gradients of
    x and of the taps, and of a second derivative.
    """
    small = args.device == "cpu"
    rows: list[dict[str, Any]] = []
    sizes = SMALL_SIZES if small else SIZES
    for done, size in enumerate(sizes):
        if time.time() > until - GRACE:
            yield "sizes left out", str(sizes[done:])
            break
        for name, dtype in DTYPES.items():
            torch.manual_seed(0)
            x, g = torch.randn(2, 3, 4, *size, device=args.device).to(dtype).unbind(0)
            exact = solved(layer_like(x, "fft").double(), x.double(), g.double())
            for backend in ("fft", "gemm", "fused"):
                row: dict[str, Any] = {"backend": backend, "dtype": name}
                row["size"] = list(size)
                try:
                    found = solved(layer_like(x, backend), x, g)
                    row |= {k: error(v, exact[k]) for k, v in found.items()}
                except Exception as failure:
                    row["failed"] = " ".join(str(failure).split())[:300]
                rows.append(row)
        yield "errors", rows
    for backend in ("fused", "fft", "gemm"):
        for name, same in equalities(backend, args.device).items():
            yield f"{backend}, {name}", same


def layer_like(x: Tensor, backend: str) -> ImplicitConv2d:
    torch.manual_seed(1)
    layer = ImplicitConv2d(x.shape[1], alpha=10.0, init="uniform", backend=backend)
    return layer.to(x.device)


def solved(layer: ImplicitConv2d, x: Tensor, g: Tensor) -> dict[str, Tensor]:
    """Return y, the gradients of <g, y>, and one of the squared gradient of x."""
    x = x.clone().requires_grad_()
    y = layer(x)
    grads = torch.autograd.grad(y, [x, layer.L.B], g, create_graph=True)
    (second,) = torch.autograd.grad(grads[0].float().square().sum(), layer.L.B)
    return {"y": y, "x": grads[0], "taps": grads[1], "second": second}


def error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


def equalities(backend: str, device: str) -> dict[str, Any]:
    """Tell what must not change a result: another run, layout, compilation, a graph.

    Values are the largest difference, relative to the largest value; a text if it failed.
    """
    x = torch.randn(4, 8, 32, 32, device=device)
    layer = layer_like(x, backend)

    def run(call: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
        leaf = image.clone().requires_grad_()
        y = call(leaf)
        grads = torch.autograd.grad(y.square().sum(), [leaf, *layer.parameters()])
        return torch.cat([part.flatten() for part in (y.contiguous(), *grads)])

    def compiled() -> Tensor:
        return run(torch.compile(layer), x)

    def graphed() -> Tensor:
        static = x.clone().requires_grad_()
        torch.cuda.make_graphed_callables(layer, (static,))
        return run(layer, x)

    ways: dict[str, Callable[[], Tensor]] = {
        "another run": lambda: run(layer, x),
        "channels_last": lambda: run(
            layer, x.contiguous(memory_format=torch.channels_last)
        ),
    }
    if device == "cuda":
        ways |= {"compiled": compiled, "CUDA graph": graphed}
    plain = run(layer, x)
    found: dict[str, Any] = {}
    for name, way in ways.items():
        try:
            found[name] = float((way() - plain).abs().max() / plain.abs().max())
        except Exception as failure:
            found[name] = " ".join(str(failure).split())[:300]
    return found


def run_benchmark(args: Arguments, until: float) -> Iterator[tuple[str, Any]]:
    """Run scripts/benchmarks/solve.py, eager and compiled, in bfloat16 and in float32."""
    if args.device == "cpu":
        common = ["shapes=[[2,4,16,16]]", "sides=[16]", "between=[16]", "rounds=3"]
        ways = {"float32": ["dtype=float32", "pixels=512"]}
    else:
        shapes = "shapes=[[64,64,64,64],[64,256,64,64],[8,32,240,320]]"
        two = "shapes=[[64,64,64,64],[64,256,64,64]]"
        common = ["sides=[64]", "rounds=30", f"pixels={2**25}"]
        no_large = "without=['depthwise 31x31']"
        between = "between=[32,64,67,128,131,256,320]"
        alone = "[solve,'solve, fft','solve, gemm','solve, fused','Algorithm 1',copy]"
        blocks = [f"without={alone}", "between=[64]"]
        ways = {
            "bfloat16": ["dtype=bfloat16", shapes, between, no_large],
            "float32": ["dtype=float32", shapes, "between=[64]", no_large],
            "bfloat16, compiled": ["dtype=bfloat16", "compile=true", two, *blocks],
        }
    for name, words in ways.items():
        path = Path(args.out) / f"benchmark_{name.replace(', ', '_')}.json"
        script = str(ROOT / "scripts" / "benchmarks" / "solve.py")
        words = [f"out={path}", f"device={args.device}", "epochs=0", *common, *words]
        ended = call([script, *words], until, Path(args.out) / f"{path.stem}.log")
        yield name, json.loads(path.read_text()) if ended == 0 else f"exit code {ended}"


def train_main(args: Arguments, until: float) -> Iterator[tuple[str, Any]]:
    """Run the main job as it is, in mixed precision, and with CUDA graphs."""
    small = ["data.train=16", "data.val=4", "data.test=4", "trainer.max_epochs=1"]
    ways = {"default": small} if args.device == "cpu" else {}
    if args.device == "cuda":
        ways = {
            name: ["trainer=gpu", f"speed={name}", "data.on_device=true"]
            for name in ("graphs", "mixed")
        }
    for name, words in ways.items():
        run = Path(args.out) / "main" / name
        yield name, trained(run, words, until)


def measure_speeds(args: Arguments, until: float) -> Iterator[tuple[str, Any]]:
    """Measure steps per second of the published IMEXnet in each mode."""
    for name in ("default",) if args.device == "cpu" else ("graphs", "mixed"):
        words = published(args, "imexnet", name)
        if args.device == "cuda":
            words += ["trainer.max_epochs=9", "trainer.check_val_every_n_epoch=3"]
        yield name, trained(Path(args.out) / "speeds" / name, words, until)


def train_table1(args: Arguments, until: float) -> Iterator[tuple[str, Any]]:
    """Train both published networks side by side until the time is up."""
    runs = {name: Path(args.out) / "table1" / name for name in ("imexnet", "resnet")}
    started = {}
    for name in runs:
        words = published(args, name, "default" if args.device == "cpu" else "graphs")
        if args.resume:
            earlier = (Path(args.resume) / "table1" / name).absolute()
            words, runs[name] = [f"resume={earlier}"], earlier
        started[name] = start(runs[name], words)
    for name, process in started.items():
        ended = end(process, until)
        yield name, result(runs[name], ended)


def published(args: Arguments, model: str, speed: str) -> list[str]:
    """Return the words of train.py for Table 1, without pictures of every validation."""
    words = ["experiment=qtips_table1", f"model={model}", f"speed={speed}"]
    if args.device == "cpu":
        small = "data.train=8 data.val=4 data.test=4 model.widths=[2,4] model.steps=1"
        return [*words, *small.split(), "trainer.max_epochs=3"]
    idle = ("figures", "stability", "auto_alpha")
    words += [f"callbacks.{name}=null" for name in idle]
    return [*words, "trainer=gpu", "data.on_device=true"]


def trained(run: Path, words: list[str], until: float) -> dict[str, Any]:
    """Train to the end, or until the time is up; return the rows and scores of the run."""
    if until - time.time() < GRACE:
        return {"exit": -1, "rows": [], "said": "no time was left"}
    return result(run, end(start(run, words), until))


def start(run: Path, words: list[str]) -> subprocess.Popen:
    run.parent.mkdir(parents=True, exist_ok=True)
    where = [] if words[0].startswith("resume=") else [f"hydra.run.dir={run}"]
    with (run.parent / f"{run.name}.log").open("w") as log:
        command = [sys.executable, str(ROOT / "train.py"), *words, *where]
        return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)


def end(process: subprocess.Popen, until: float) -> int:
    """Wait for a training, interrupt it in time for its checkpoint; return its code."""
    for way in (None, signal.SIGINT, signal.SIGKILL):
        if way is not None:
            process.send_signal(way)
        with suppress(subprocess.TimeoutExpired):
            spare = GRACE if way is None else 0.0
            return process.wait(max(1.0, until - spare - time.time()))
    return process.wait()


def result(run: Path, ended: int) -> dict[str, Any]:
    """Return the results in a run folder: rows of metrics.csv, scores, seconds an epoch."""
    found: dict[str, Any] = {"exit": ended, "rows": []}
    if (path := run / "metrics.csv").is_file():
        with path.open(newline="") as file:
            rows = [
                {k: float(v) for k, v in r.items() if v} for r in csv.DictReader(file)
            ]
        found["rows"] = rows
        if len(rows) > 2:  # the first row counts what is made once
            spent = rows[-1]["seconds"] - rows[0]["seconds"]
            for unit in ("epoch", "step"):
                found[f"{unit}s_per_second"] = (rows[-1][unit] - rows[0][unit]) / spent
    if (path := run / METRICS).is_file():
        found["metrics"] = json.loads(path.read_text())
    if ended != 0 and (log := run.parent / f"{run.name}.log").is_file():
        found["said"] = log.read_text()[-300:]
    return found


def call(command: list[str], until: float, log: Path, **variables: str) -> int:
    """Run a Python script until the time is up; return its code, -9 if it was killed."""
    with log.open("w") as file:
        try:
            return subprocess.run(
                [sys.executable, *command],
                stdout=file,
                stderr=file,
                cwd=ROOT,
                env={**os.environ, **variables},
                timeout=max(1.0, until - time.time()),
            ).returncode
        except subprocess.TimeoutExpired:
            return -signal.SIGKILL


RUN: dict[str, Callable[[Arguments, float], Iterator[tuple[str, Any]]]] = {
    "machine": measure_machine,
    "correctness": check_correctness,
    "benchmark": run_benchmark,
    "main": train_main,
    "speeds": measure_speeds,
    "table1": train_table1,
}


def run_step(name: str, args: Arguments) -> None:
    """Run one step in this process, and write what it has found after every part."""
    path, found = Path(args.out) / f"{name}.json", dict[str, Any]()
    for key, value in RUN[name](args, time.time() + 60 * args.minutes):
        found[key] = value
        write_json(path, found)


def run_all(args: Arguments) -> dict[str, Any]:
    """Run the steps one after the other; return what each of them has found."""
    out, until = Path(args.out).absolute(), time.time() + 60 * args.minutes
    results: dict[str, Any] = {}
    for number, name in enumerate(args.steps):
        begun = time.time()
        share = SHARES[name] / sum(SHARES[step] for step in args.steps[number:])
        minutes = share * (until - begun) / 60
        words = [f"out={out}", f"device={args.device}", f"minutes={minutes}"]
        words += [f"only={name}", *([f"resume={args.resume}"] if args.resume else [])]
        emulated = args.device == "cpu" and name in ("correctness", "benchmark")
        variables = {"TRITON_INTERPRET": "1"} if emulated else {}
        log = out / f"{name}.log"
        ended = call([sys.argv[0], *words], begun + 60 * minutes + 5, log, **variables)
        path = out / f"{name}.json"
        results[name] = json.loads(path.read_text()) if path.is_file() else {}
        results[name] |= {"seconds": round(time.time() - begun, 1), "exit": ended}
        if ended != 0:
            results[name]["said"] = log.read_text()[-600:]
        write_json(out / "gpu.json", results)
        write_text(out / "gpu.md", page(results))
        print(f"{name}: exit {ended}, {results[name]['seconds']} s", flush=True)
    return results


def main() -> None:
    args = parse_arguments(Arguments)
    for name in args.steps:
        if name not in SHARES:
            raise ConfigError(f"steps={name}: no such step, {nearest(name, SHARES)}")
    if args.device not in ("cuda", "cpu"):
        raise ConfigError(f"device={args.device}: expected cuda or cpu")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda: there is no CUDA device")
    Path(args.out).mkdir(parents=True, exist_ok=True)
    if args.only:
        run_step(args.only, args)
        return
    results = run_all(args)
    print(page(results))
    if failed := [name for name, found in results.items() if found["exit"] != 0]:
        raise SystemExit(f"{', '.join(failed)}: failed, see {args.out}/gpu.md")


if __name__ == "__main__":
    run_command(main)
