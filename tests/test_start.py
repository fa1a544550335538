"""What a command imports before it uses it: nothing that takes long."""

import json
from pathlib import Path

import pytest
from conftest import ROOT, Command

TRAIN = str(ROOT / "train.py")

HEAVY = {
    "torch",
    "pytorch_lightning",
    "torchmetrics",
    "tensorboard",
    "h5py",
    "typeguard",
}
"""What a training needs, and printing its configuration does not."""

UNUSED = {
    *("scipy.signal", "scipy.stats", "scipy.sparse.linalg", "pandas", "kornia", "ray"),
    *("optuna", "onnx", "monai", "torchvision", "wandb", "mlflow"),
}
"""What the main job does not need."""

TORCHS_OWN = {"torch._dynamo", "sympy", "matplotlib"}
"""What torch imports for its first optimizer, and torchmetrics for plots, in a training."""

TELL = """
import atexit, json, sys
def tell():
    with open({path!r}, "w") as file:
        json.dump(sorted(sys.modules), file)
atexit.register(tell)
"""
"""A sitecustomize.py that writes down the imports of the process."""


def modules_of(python: Command, folder: Path, *words: str) -> set[str]:
    """Return what `python <words>` has imported at its end."""
    path = folder / "modules"
    (folder / "sitecustomize.py").write_text(TELL.format(path=str(path)))
    done = python(*words, cwd=folder, PYTHONPATH=f"{folder}:{ROOT}")
    assert done.returncode == 0, done.stderr
    return set(json.loads(path.read_text()))


@pytest.mark.parametrize(
    "words",
    [["-c", "import imex_experiments"], [TRAIN, "--help"], [TRAIN, "--cfg", "job"]],
    ids=lambda words: words[-1],
)
def test_what_trains_nothing_imports_nothing_heavy(
    words: list[str], python: Command, tmp_path: Path
) -> None:
    modules = modules_of(python, tmp_path, *words)
    assert not modules & (HEAVY | UNUSED | TORCHS_OWN)


@pytest.mark.slow
def test_a_training_imports_what_it_uses(python: Command, tmp_path: Path) -> None:
    words = ["trainer.max_epochs=1", "data.train=16", "data.val=4", "data.test=4"]
    modules = modules_of(python, tmp_path, TRAIN, "model.widths=[2,4]", *words)
    assert modules >= HEAVY - {"h5py"}
    assert not modules & UNUSED


@pytest.mark.slow
def test_a_module_that_is_spared_is_there_for_those_who_use_it(python: Command) -> None:
    """Also within the body, where something stands for it."""
    code = """
from imex_experiments.process.spared import without_unused
with without_unused():
    import torchmetrics
    import sys
    assert "scipy.signal" in sys.modules and "scipy.fft" not in sys.modules
    {inside}
import scipy.signal
assert scipy.signal.lfilter([1], [1], [3.0]) == [3.0]
assert callable(scipy.signal.windows.hamming)
"""
    inside = (
        "from scipy.signal import lfilter; assert lfilter([1], [1], [2.0]) == [2.0]"
    )
    for body in (inside, "pass"):
        done = python("-c", code.format(inside=body))
        assert done.returncode == 0, done.stderr
