"""Export a trained network to a file that runs without this package.

`python scripts/export.py run=<run> format=onnx out=<file>.onnx`

`format=onnx` is for onnxruntime, `format=torch` for `torch.export.load` (<file>.pt2). The
model takes images (N, C, H, W) of the type of the training images (uint8 as a rule),
normalises them, and returns the output of the network: logits, or depths. N is free, and so
are H and W if the network allows it; otherwise they are fixed to the size of the run's data.
The command prints which. Before it ends, it runs the file on random images of several sizes
and compares the output with that of the network. A run with classes of your own needs
`allow=[<package>]` again.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from omegaconf import MISSING
from torch import Tensor, nn

from imex_experiments.config.arguments import parse_arguments
from imex_experiments.errors import ConfigError, NumericsError
from imex_experiments.installed import install_line
from imex_experiments.runs.load import load_data, load_run
from imex_experiments.tasks import Task
from imex_experiments.terms.diffusion import Diffusion

log = logging.getLogger(__name__)

Run = Callable[[Tensor], Tensor]
Write = Callable[[torch.export.ExportedProgram, Path], Run]
Axes = dict[int, Any]
"""Axis -> its dimension in torch.export, for free axes."""

FIXED: Axes = {0: torch.export.Dim.DYNAMIC}
FREE: Axes = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)

TOLERANCE = 1e-4
SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}


@dataclass
class Arguments:
    run: str = MISSING
    format: str = MISSING
    out: str = MISSING
    checkpoint: str = "best"
    allow: list[str] = field(default_factory=list)


def main() -> None:
    args = parse_arguments(Arguments)
    if args.format not in SUFFIXES:
        raise ConfigError(f"format={args.format}: expected {' or '.join(SUFFIXES)}")
    out = Path(args.out)
    if out.suffix != SUFFIXES[args.format]:
        raise ConfigError(
            f"out={out}: expected a name that ends in {SUFFIXES[args.format]}"
        )
    if args.format == "onnx":
        require_onnx()
    task: Task = load_run(args.run, args.checkpoint, allow=args.allow)
    for module in task.modules():
        if isinstance(module, Diffusion):
            module.backend = "gemm"  # the backend that both formats support
    shape = load_data(args.run, args.allow).image_shape
    write = {"onnx": write_onnx, "torch": write_torch}[args.format]
    try:
        report = export(task, write, out, trials(task, shape), FREE)
        sides = "are free"
    except Exception as error:  # exporters refuse a graph in many ways
        log.debug("height and width cannot be free", exc_info=error)
        report = export(task, write, out, random_images(task, [shape]), FIXED)
        sides = f"are fixed at {shape[1]} x {shape[2]}"
    print(f"{out}: {report}; height and width {sides}")


def trials(task: Task, shape: tuple[int, int, int]) -> list[Tensor]:
    """Return random images of the shape of the data, and of others the network accepts."""
    channels, height, width = shape
    wide, tall = (channels, height, 2 * width), (channels, 2 * height, width)
    odd = channels, height + 1, width + 1
    first, *images = random_images(task, [shape, wide, tall, odd])
    return [first, *(batch for batch in images if accepts(task, batch))]


def random_images(task: Task, shapes: Iterable[tuple[int, int, int]]) -> list[Tensor]:
    """Return three random inputs of each shape (C, H, W), from a fixed seed."""
    generator = torch.Generator().manual_seed(0)
    if task.facts["dtype"] == "float32":
        noise = [torch.randn(3, *shape, generator=generator) for shape in shapes]
        return [task.mean + task.std * images for images in noise]
    return [
        torch.randint(0, 256, (3, *shape), generator=generator).to(torch.uint8)
        for shape in shapes
    ]


def accepts(task: Task, images: Tensor) -> bool:
    """Return True if the network accepts images of this size."""
    try:
        with torch.no_grad():
            task(images)
    except ValueError:
        return False
    return True


def export(
    task: Task, write: Write, out: Path, batches: Sequence[Tensor], free: Axes
) -> str:
    """Write the file, traced with the first batch; return its agreement with the network.

    Raises NumericsError if its output for a batch differs from that of the network.
    """
    run = write(exported(task, batches[0][:2], free), out)
    differences, same = [], []
    for images in batches:
        with torch.no_grad():
            written, expected = run(images), task(images)
        differences.append(float((written - expected).abs().max()))
        same.append(float((written.argmax(1) == expected.argmax(1)).float().mean()))
    difference = max(differences)
    if not difference < TOLERANCE:
        raise NumericsError(f"{out}: differs from the network by {difference:.1e}")
    return f"differs by {difference:.1e}, {100 * min(same):.2f} % of the labels agree"


def require_onnx() -> None:
    """Raise ConfigError if a package for ONNX is missing."""
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401  (torch.onnx needs it, and fails late without)
    except ImportError as error:
        raise ConfigError(
            f"format=onnx needs {error.name}: {install_line('export')}"
        ) from error


class Named(nn.Module):
    """A module around the task, since ONNX confuses its buffer `mean` with an operation."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task

    def forward(self, images: Tensor) -> Tensor:
        return self.task(images)


def exported(task: Task, images: Tensor, free: Axes) -> torch.export.ExportedProgram:
    """Return the graph of the forward pass, with the given axes of images free."""
    shapes = {"images": free}
    return torch.export.export(Named(task).eval(), (images,), dynamic_shapes=shapes)


def write_torch(program: torch.export.ExportedProgram, out: Path) -> Run:
    """Write the graph for `torch.export.load`; return the function in the file."""
    logging.getLogger("torch._export").setLevel(logging.ERROR)  # about unused symbols
    # Decomposed: the file format has no autocast regions with free sizes.
    torch.export.save(program.run_decompositions({}), out)
    return torch.export.load(out).module()


def write_onnx(program: torch.export.ExportedProgram, out: Path) -> Run:
    """Write the graph for onnxruntime; return the function in the file."""
    import onnxruntime  # installed with the extra `export`

    # It warns that torchvision is missing, which is not needed.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    model = torch.onnx.export(
        program,
        input_names=["images"],
        output_names=["output"],
        dynamo=True,
        verbose=False,
    )
    assert model is not None
    model.save(out)
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"images": x.numpy()})[0])
