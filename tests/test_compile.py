"""torch.compile: no graph breaks, the same numbers, the same names in a checkpoint."""

import os
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import QUICK, ROOT, Command, needs_kernels, rounding
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.export import Dim

from imex_experiments import ImplicitConv2d, load_run
from imex_experiments.integrators import Imex
from imex_experiments.networks import DynamicNet
from imex_experiments.terms import DoubleLayer, GramDiffusion

needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX") or "g++") is None,
    reason="Inductor needs g++ to compile for a CPU",
)


def network(boundary: str) -> nn.Module:
    torch.manual_seed(0)
    diffusion = partial(GramDiffusion, backend="gemm")
    options = {"boundary": boundary, "padding": None, "alpha": 10.0}
    return DynamicNet(1, 2, [2], Imex(), DoubleLayer, diffusion, **options)


def assert_near(found: list[Tensor], exact: list[Tensor], length: int) -> None:
    """Fail where a result differs by more than sums of `length` terms may be rounded.

    Gradients that cancel have the rounding of what they are made of, here the largest.
    """
    largest = max(float(one.detach().abs().max()) for one in exact)
    atol = rounding(torch.float32, length) * largest
    torch.testing.assert_close(found, exact, rtol=0, atol=atol)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("boundary", ["periodic", "neumann", "dirichlet"])
def test_the_graph_has_no_breaks(boundary: str, training: bool) -> None:
    torch.compiler.reset()
    plain, traced = network(boundary), network(boundary)
    names = list(traced.state_dict())
    traced.compile(backend="aot_eager", fullgraph=True)
    x = torch.randn(2, 1, 12, 9)
    results = []
    for net in (plain.train(training), traced.train(training)):
        y = net(x)
        y.square().sum().backward()
        results.append([y, *(p.grad for p in net.parameters())])
    assert_near(*results, 2 * 12 * 9)  # over the pixels of two images
    assert list(traced.state_dict()) == names


@needs_compiler
@pytest.mark.parametrize(
    "backend", ["gemm", pytest.param("fused", marks=needs_kernels)]
)
def test_compiled_solve_has_the_same_gradients(backend: str) -> None:
    torch.compiler.reset()
    layer = ImplicitConv2d(2, alpha=3.0, backend=backend)
    x = torch.randn(2, 2, 16, 16, requires_grad=True)
    results = []
    for solve in (layer, torch.compile(layer, fullgraph=True)):
        y = solve(x)
        results.append([y, *torch.autograd.grad(y.pow(3).sum(), [x, layer.L.B])])
    assert_near(*results, 2 * 16 * 16)


FIVE_SIZES = [(16, 16), (18, 22), (32, 20), (13, 21), (11, 14)]


@pytest.mark.parametrize(
    ("boundary", "backend"),
    [
        ("periodic", "gemm"),
        pytest.param("periodic", "fused", marks=needs_kernels),
        ("neumann", "auto"),
    ],
)
def test_training_over_five_sizes_takes_two_graphs(boundary: str, backend: str) -> None:
    """One for the first size and one for all others, of sides even, odd and prime."""
    torch.compiler.reset()
    counters.clear()
    layer = ImplicitConv2d(2, alpha=3.0, boundary=boundary, backend=backend)
    traced = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for size in FIVE_SIZES:
        x = torch.randn(2, 2, *size, requires_grad=True)
        results = []
        for solve in (layer, traced):
            y = solve(x)
            results.append([y, *torch.autograd.grad(y.sin().sum(), [x, layer.L.B])])
        assert_near(*results, 2 * size[0] * size[1])
    assert counters["stats"]["unique_graphs"] == 2


@needs_compiler
@pytest.mark.slow
def test_inductor_trains_over_sizes() -> None:
    torch.compiler.reset()
    layer = ImplicitConv2d(2, alpha=3.0, backend="gemm")
    traced = torch.compile(layer, fullgraph=True)
    for size in FIVE_SIZES[:3]:
        x = torch.randn(2, 2, *size)
        traced(x).sin().sum().backward()
    assert layer.L.B.grad.isfinite().all()


@pytest.mark.parametrize("boundary", ["periodic", "neumann"])
def test_onnx_with_free_sides_gives_what_torch_gives(
    boundary: str, tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    layer = ImplicitConv2d(2, alpha=3.0, boundary=boundary).eval()
    free = {"x": {0: Dim("n"), 2: Dim("h", min=3), 3: Dim("w", min=3)}}
    graph = torch.export.export(layer, (torch.ones(2, 2, 8, 9),), dynamic_shapes=free)
    program = torch.onnx.export(graph, dynamo=True, verbose=False)
    program.save(tmp_path / "solve.onnx")
    session = onnxruntime.InferenceSession(
        tmp_path / "solve.onnx", providers=["CPUExecutionProvider"]
    )
    (name,) = (one.name for one in session.get_inputs())
    for size in [(8, 9), (33, 20), (3, 14)]:
        x = torch.randn(3, 2, *size)
        (found,) = session.run(None, {name: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), layer(x).detach())


@needs_compiler
@pytest.mark.slow
def test_compiled_run_is_loaded_like_any_other(
    python: Command, trained: Path, tmp_path: Path
) -> None:
    words = [*QUICK, "trainer.compile=true"]
    done = python(str(ROOT / "train.py"), *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "outputs/qtips/imexnet").iterdir()
    assert load_run(run).state_dict().keys() == load_run(trained).state_dict().keys()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["trainer.compile=yes_please"], "trainer.compile=yes_please: expected true"),
        (["trainer.tf32=maybe"], "trainer.tf32=maybe: expected true or false"),
        (["trainer.compile=true"], "no C++ compiler '/no/g++' found"),
        (["model.boundary=reflect"], "got 'reflect'; reflect is not offered"),
        (
            ["model.diffusion.backend=mkl"],
            "backend must be one of auto, fft, gemm, fused",
        ),
    ],
)
def test_what_cannot_work_is_refused(
    words: list[str], complaint: str, forked: Command, tmp_path: Path
) -> None:
    if "trainer.compile=true" in words and torch.cuda.is_available():
        pytest.skip("a CUDA device needs no C++ compiler")
    done = forked(str(ROOT / "train.py"), *words, cwd=tmp_path, CXX="/no/g++")
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert complaint in line
    assert list(tmp_path.iterdir()) == []


def test_mixed_precision_trains_with_walls_and_recomputed_blocks(
    python: Command, tmp_path: Path
) -> None:
    words = [*QUICK, "trainer.precision=bf16-mixed", "model.boundary=neumann"]
    words += ["model.padding=null", "model.checkpoint_blocks=true"]
    words += ["trainer.channels_last=true", "trainer.tf32=true", "data.on_device=true"]
    done = python(str(ROOT / "train.py"), *words, "data.train=16", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
