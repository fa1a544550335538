"""The fused backend: its kernels in Triton's interpreter and on a device, its limits."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Command

from imex_experiments.operators.transforms import (
    TRITON,
    PeriodicFused,
    choose,
)
from imex_experiments.terms import GramDiffusion

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

    from imex_experiments.operators import fused

    sizes: dict[str, Any] = {"H": 64, "W": 64}
    constants = sizes | {"precision": "tf32" if dtype == "bf16" else "tf32x3"}
    for kernel, stages in ((fused._product_kernel, 2), (fused._gradients_kernel, 1)):
        types = dict.fromkeys(kernel.arg_names, "*fp32")
        types |= dict.fromkeys(types.keys() & set("xyg") | {"residual"}, f"*{dtype}")
        types |= dict.fromkeys(("batch", "channels", "chunk"), "i32")
        types |= dict.fromkeys(constants, "constexpr")
        kept = {name: types[name] for name in kernel.arg_names}
        compiled = triton.compile(
            ASTSource(kernel, kept, constants),
            target=GPUTarget("cuda", 90, 32),
            options={"num_warps": 4, "num_stages": stages},
        )
        assert programs * (compiled.metadata.shared + 1024) <= 228 * 1024


def test_auto_leaves_kernels_to_those_who_ask_for_them() -> None:
    """Until they have been timed on a device."""
    F = choose((64, 64), "periodic", kernels=True)
    assert not isinstance(F, PeriodicFused)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a device can do it")
def test_asking_for_kernels_without_a_device_is_refused() -> None:
    with pytest.raises(
        ValueError, match="backend=fused needs triton and a CUDA device"
    ):
        GramDiffusion(3, alpha=1.0, backend="fused")
