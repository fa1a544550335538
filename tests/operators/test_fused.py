"""The fused backend: Triton's kernels in an interpreter and on a device, those for CPUs."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Command, needs_kernels, rounding, sensitivity
from hypothesis import example, given, settings
from hypothesis import strategies as st

from imex_experiments.operators.implicit_conv import symbol_product, transform_of
from imex_experiments.operators.kernels import available, cpp
from imex_experiments.operators.kernels.available import TRITON
from imex_experiments.operators.select import choose
from imex_experiments.operators.stencils import gram_symbol
from imex_experiments.operators.transforms import (
    PeriodicCpp,
    PeriodicFft,
    PeriodicGemm,
    PeriodicTriton,
)

needs_triton = pytest.mark.skipif(not TRITON, reason="triton is not installed")
old = TRITON and tuple(map(int, version("triton").split(".")[:2])) < (3, 7)
interpreted = pytest.mark.skipif(
    old, reason="the interpreter of triton < 3.7 does not know the present NumPy"
)
on_device = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@needs_triton
@pytest.mark.parametrize(
    "interpret",
    [
        pytest.param("1", marks=interpreted, id="interpreter"),
        pytest.param("0", marks=on_device, id="device"),
    ],
)
def test_kernels(interpret: str, python: Command) -> None:
    file = str(Path(__file__).with_name("fused_kernels.py"))
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", file]
    words += [] if interpret == "0" else ["-m", "not slow"]
    done = python(*words, TRITON_INTERPRET=interpret)
    assert done.returncode == 0, done.stdout


@needs_triton
@pytest.mark.parametrize(("dtype", "programs"), [("bf16", 2), ("fp32", 1)])
def test_programs_of_a_hopper_multiprocessor(
    dtype: str, programs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled for it without a device: shared memory for one, for half precision two."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from imex_experiments.operators.kernels import triton as kernels_of

    sizes: dict[str, Any] = {"H": 64, "W": 64}
    constants = sizes | {"precision": "float16" if dtype == "bf16" else "tf32x3"}
    kernels = kernels_of._product_kernel, kernels_of._gradients_kernel
    for kernel, stages in zip(kernels, (2, 1), strict=True):
        types = dict.fromkeys(kernel.arg_names, "*fp32")
        types |= dict.fromkeys(types.keys() & {*"xyg", "grad_x"}, f"*{dtype}")
        types |= dict.fromkeys(("batch", "channels", "chunk"), "i32")
        types |= dict.fromkeys(constants, "constexpr")
        kept = {name: types[name] for name in kernel.arg_names}
        compiled = triton.compile(
            ASTSource(kernel, kept, constants),
            target=GPUTarget("cuda", 90, 32),
            options={"num_warps": 4, "num_stages": stages},
        )
        assert programs * (compiled.metadata.shared + 1024) <= 228 * 1024


@pytest.mark.parametrize(
    ("size", "dtype", "kind"),
    [
        ((64, 32), torch.float32, PeriodicTriton),
        ((64, 96), torch.bfloat16, PeriodicFft),
        ((64, 128), torch.bfloat16, PeriodicTriton),
        ((64, 128), torch.float32, PeriodicFft),
        ((32, 128), torch.bfloat16, PeriodicFft),
    ],
)
def test_auto_takes_the_kernels_of_triton_in_one_pass(
    size: tuple[int, int], dtype: torch.dtype, kind: type
) -> None:
    """Measured on an H200: three passes are slower than the FFT."""
    F = choose(size, "periodic", kernels="triton", dtype=dtype)
    assert type(F) is kind


SIDES = st.integers(1, 70) | st.sampled_from([96, 121, 127, 143, 160])


@needs_kernels
@settings(deadline=None, max_examples=60)
@given(
    size=st.tuples(SIDES, SIDES),
    batch=st.integers(1, 5),
    channels=st.integers(1, 3),
    threads=st.integers(1, 4),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
@example(size=(480, 320), batch=1, channels=9, threads=2, dtype=torch.float32)
def test_kernels_for_cpus_agree_with_torch(
    size: tuple[int, int], batch: int, channels: int, threads: int, dtype: torch.dtype
) -> None:
    """Any sides, batches parted between threads, results that pass the caches."""
    generator = torch.Generator().manual_seed(batch)
    options = {"dtype": torch.float64, "generator": generator}
    x, g = torch.randn(2, batch, channels, *size, **options)
    b = torch.randn(channels, 3, 3, **options)
    results = []
    for backend, kind in (("fft", torch.float64), ("fused", dtype)):
        inputs = x.to(kind).requires_grad_(), b.to(kind).requires_grad_()
        symbol = 1 / (1 + gram_symbol(inputs[1], size))
        with torch_threads(threads):
            y = symbol_product(inputs[0], symbol, backend=backend)
            results.append([y, *torch.autograd.grad(y, inputs, g.to(kind))])
    allowed = rounding(dtype, 2 * sum(size)) + rounding(dtype, 9, sensitivity(b, 1))
    pairs = list(zip(*results, strict=True))
    assert all(found.dtype == dtype for _, found in pairs)
    for (exact, found), source in zip(pairs[:2], (x, g), strict=True):
        assert (found - exact).norm() <= allowed * source.norm()  # a contraction
    # A tap's is sum X G d t, d t = 2 |B^| t^2 <= 1, of two spectra.
    taps = float((pairs[2][0] - pairs[2][1]).detach().abs().max())
    assert taps <= 2 * allowed * float((x.norm() * g.norm()).detach())


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@needs_kernels
def test_kernels_with_shorter_vectors(python: Command) -> None:
    """Where this processor has longer ones; `make test-matrix` has none at all."""
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", __file__]
    words += ["-k", "test_kernels_for_cpus_agree_with_torch"]
    done = python(*words, ATEN_CPU_CAPABILITY="avx2")
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


@needs_kernels
def test_kernels_for_cpus_are_known_to_torch() -> None:
    x = torch.randn(3, 2, 8, 12, dtype=torch.float64, requires_grad=True)
    t = torch.rand(2, 8, 7, dtype=torch.float64, requires_grad=True)
    g = torch.randn_like(x).requires_grad_()
    torch.library.opcheck(cpp.product, (x, t))
    torch.library.opcheck(cpp.gradients, (g, x, t))


@needs_kernels
def test_planes_do_not_see_each_other() -> None:
    """Bit for bit: an image is solved as it would be alone, beside one 10^6 as large."""
    x = torch.randn(4, 3, 24, 20)
    symbol = 1 / (1 + gram_symbol(torch.rand(3, 3, 3), (24, 20)))
    beside = torch.cat([x[:1], 1e6 * x[1:]])
    alone = symbol_product(x[:1], symbol, backend="fused")
    assert torch.equal(symbol_product(beside, symbol, backend="fused")[:1], alone)


@needs_kernels
@pytest.mark.parametrize(
    ("x", "kind"),
    [
        (torch.ones(1, 1, 64, 60), PeriodicCpp),
        (torch.ones(1, 1, 64, 60, dtype=torch.bfloat16), PeriodicCpp),
        (torch.ones(1, 1, 64, 11), PeriodicCpp),
        (torch.ones(1, 1, 64, 60, device="meta"), PeriodicFft),
    ],
)
def test_auto_takes_the_kernels_for_cpus_where_they_can_run(
    x: torch.Tensor, kind: type
) -> None:
    assert type(transform_of(x, "periodic", "auto")) is kind


@needs_kernels
@pytest.mark.parametrize("size", [(64, 11), (1, 1), (67, 71)])
@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64]
)
def test_fused_is_never_another_backend_in_silence(
    size: tuple[int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is used, refused with the remedy, or stands back where torch asks for it."""
    x = torch.ones(1, 1, *size, dtype=dtype)
    assert type(transform_of(x, "periodic", "fused")) is PeriodicCpp
    assert type(transform_of(x.to("meta"), "periodic", "fused")) is PeriodicGemm
    monkeypatch.setattr(available, "built", lambda: False)
    monkeypatch.setattr(available, "emulated", lambda: False)
    with pytest.raises(
        ValueError,
        match=r"backend=fused has no kernels for torch.* on cpu; "
        "take backend=auto",
    ):
        transform_of(x, "periodic", "fused")


OF_CONSTANTS = 256 * rounding(torch.float32, 2 * (8 + 8))
"""What rounding may do to the sum of 256 ones that are solved."""

SOLVE = """
import logging, sys
logging.basicConfig(level="INFO", format="%(message)s", stream=sys.stdout)
import torch
from imex_experiments import ImplicitConv2d
layer = ImplicitConv2d(2, backend=sys.argv[1])
print(layer(torch.ones(2, 2, 8, 8)).sum().item())
"""


def test_without_a_compiler_torch_solves(python: Command, tmp_path: Path) -> None:
    where = {"CXX": "/no/compiler", "IMEX_CACHE": str(tmp_path)}
    done = python("-c", SOLVE, "auto", **where)
    said, total = done.stdout.strip().splitlines()
    assert said.startswith(
        "no kernels for this CPU, implicit steps are solved by torch"
    )
    assert "/no/compiler" in said
    assert float(total) == pytest.approx(256, abs=OF_CONSTANTS)
    if not torch.cuda.is_available():
        done = python("-c", SOLVE, "fused", **where)
        assert "ValueError: backend=fused needs g++ for a CPU" in done.stderr
        assert "take backend=auto" in done.stderr


ANEW = """
import logging, sys
logging.basicConfig(level="INFO", format="%(message)s", stream=sys.stdout, force=True)
import torch
from imex_experiments.operators.kernels import cpp
cpp.library.cache_clear()
print(cpp.product(torch.ones(2, 2, 8, 8), torch.ones(2, 8, 5)).sum().item())
"""


@pytest.fixture
def solve(forked: Command, tmp_path: Path) -> Command:
    """Solve in a process that has to find the kernels; compiling is copying them."""
    (script := tmp_path / "solve.py").write_text(ANEW)
    cache = Path(os.environ.get("IMEX_CACHE") or "~/.cache/imex-experiments")
    kernels = cache.expanduser().glob("kernels-*/fused-*.so")
    built = max(kernels, key=lambda path: path.stat().st_mtime)
    (compiler := tmp_path / "compiler").write_text(
        f"for to; do :; done; cp {built} $to"
    )
    return partial(forked, str(script), cwd=tmp_path, CXX=f"sh {compiler}")


def cut(path: Path) -> None:
    """The loader maps the sections that are missing, and the process dies of it."""
    os.truncate(path, path.stat().st_size // 2)


def blank(path: Path) -> None:
    """A lost block of the disk: the headers are whole, and much of the code is zeros."""
    content = path.read_bytes()
    path.write_bytes(content[:4096] + bytes(len(content) - 4096))


def replace(path: Path) -> None:
    path.write_bytes(b"no library")


@needs_kernels
@pytest.mark.parametrize("damage", [cut, blank, replace])
def test_a_damaged_library_is_built_again(
    damage: Callable[[Path], None], solve: Command, tmp_path: Path
) -> None:
    """And one that is whole is not: it is the same file, of the same time."""
    seen = []
    for harm in (damage, None, None):
        done = solve(IMEX_CACHE=str(tmp_path / "cache"))
        assert done.returncode == 0, (done.returncode, done.stderr)
        assert float(done.stdout) == pytest.approx(256, abs=OF_CONSTANTS)
        (path,) = (tmp_path / "cache").rglob("*.so")
        seen.append((path.stat().st_mtime_ns, path.stat().st_size))
        if harm:
            harm(path)
    assert seen[0][1] == seen[1][1]
    assert seen[0][0] < seen[1][0] == seen[2][0]


PLANTED = """
#include <fstream>
__attribute__((constructor)) static void run() { std::ofstream("PWNED"); }
"""


@needs_kernels
@pytest.mark.parametrize("owner", ["another user", "everybody"])
def test_a_planted_library_is_not_loaded(
    owner: str, solve: Command, tmp_path: Path
) -> None:
    """In a shared cache, under the name that it would have, and with a digest that fits."""
    if owner == "another user" and os.getuid() != 0:
        pytest.skip("giving files away needs root")
    cache = tmp_path / "cache"
    assert solve(IMEX_CACHE=str(cache)).returncode == 0
    (path,) = cache.rglob("*.so")
    (source := tmp_path / "planted.cpp").write_text(PLANTED)
    subprocess.run(["g++", "-shared", "-fPIC", source, "-o", path], check=True)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    shutil.copy(path, path.with_stem(f"{path.stem.rpartition('-')[0]}-{digest}"))
    if owner == "everybody":
        path.parent.chmod(0o777)
    else:
        for planted in (path.parent, *path.parent.iterdir()):
            os.chown(planted, 1, 1)
    done = solve(IMEX_CACHE=str(cache))
    assert not (tmp_path / "PWNED").exists()
    total = float(done.stdout.splitlines()[-1])
    assert total == pytest.approx(256, abs=OF_CONSTANTS), done.stderr
    assert "others can write there; kernels are compiled anew" in done.stdout


TOO_LARGE = """
import resource, torch
from imex_experiments.operators import transforms
from imex_experiments.operators.kernels import cpp
x, t = torch.zeros(1, 1, 4096, 4096), torch.ones(1, 4096, 2049)
cpp.product(x[..., :8, :8], t[:, :8, :5])
(used,) = (line for line in open("/proc/self/status") if line.startswith("VmSize"))
limit = 1024 * int(used.split()[1]) + 2**27  # the result, and not the room to work in
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
cpp.product(x, t)
"""


@needs_kernels
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_kernels_for_cpus_tell_when_memory_is_out(python: Command) -> None:
    done = python("-c", TOO_LARGE)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last == "MemoryError: no memory to solve for images of (1, 1, 4096, 4096)"
