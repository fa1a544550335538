"""Write a trained network as one file that runs without this package.

`python scripts/export.py run=<run> format=onnx out=<file>.onnx`

`format=onnx` is for onnxruntime, `format=torch` for `torch.export.load` (<file>.pt2). The
model takes uint8 images (N, C, H, W), N free, H and W those of the run's data, with the
normalisation inside, and gives what the network gives: logits, or depths. The file is run
once on random images and compared with the network before the command ends.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import MISSING, OmegaConf
from torch import Tensor, nn

from imex_experiments.runs.build import build
from imex_experiments.runs.command import parse_arguments, run_command
from imex_experiments.runs.errors import ConfigError, NumericsError
from imex_experiments.runs.load_run import load_config, load_run
from imex_experiments.tasks import Task
from imex_experiments.terms.diffusion import Diffusion

TOLERANCE = 1e-4
SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}


@dataclass
class Arguments:
    run: str = MISSING
    format: str = MISSING
    out: str = MISSING
    checkpoint: str = "best"


def main() -> None:
    args = parse_arguments(Arguments)
    if args.format not in SUFFIXES:
        raise ConfigError(f"format={args.format}: expected {' or '.join(SUFFIXES)}")
    out = Path(args.out)
    if out.suffix != SUFFIXES[args.format]:
        raise ConfigError(
            f"out={out}: expected a name that ends in {SUFFIXES[args.format]}"
        )
    write = {"onnx": write_onnx, "torch": write_torch}[args.format]
    task: Task = load_run(args.run, args.checkpoint)
    for module in task.modules():
        if isinstance(module, Diffusion):
            module.backend = "gemm"  # the one that both formats know
    cfg = load_config(args.run)
    OmegaConf.update(cfg, "run_dir", args.run)
    shape = build(cfg.data, "data").image_shape
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, *shape), generator=generator).to(torch.uint8)
    with torch.no_grad():
        expected = task(images)
        written = write(task, images[:2], out)(images)
    difference = float((written - expected).abs().max())
    same = float((written.argmax(1) == expected.argmax(1)).float().mean())
    if not difference < TOLERANCE:
        raise NumericsError(f"{out}: differs from the network by {difference:.1e}")
    print(f"{out}: differs by {difference:.1e}, {100 * same:.2f} % of the labels agree")


class Named(nn.Module):
    """The task below a name of its own: ONNX confuses its `mean` with an operation."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task

    def forward(self, images: Tensor) -> Tensor:
        return self.task(images)


def exported(task: Task, images: Tensor) -> torch.export.ExportedProgram:
    """The graph of the task's forward pass, with a free batch size."""
    free = {"images": {0: torch.export.Dim("images")}}
    return torch.export.export(Named(task).eval(), (images,), dynamic_shapes=free)


def write_torch(task: Task, images: Tensor, out: Path) -> Callable[[Tensor], Tensor]:
    torch.export.save(exported(task, images), out)
    return torch.export.load(out).module()


def write_onnx(task: Task, images: Tensor, out: Path) -> Callable[[Tensor], Tensor]:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  (torch.onnx needs it and says so late)
    except ImportError as error:
        raise ConfigError(
            f"format=onnx needs {error.name}: pip install -c constraints.txt -e '.[export]'"
        ) from error
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # torchvision is not missed
    program = torch.onnx.export(
        exported(task, images),
        input_names=["images"],
        output_names=["output"],
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.save(out)
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"images": x.numpy()})[0])


if __name__ == "__main__":
    run_command(main)
