"""make gpu-check, rehearsed without a device, and on one that fails."""

import json
from pathlib import Path

import pytest
import torch
from conftest import ROOT, Command, rounding

CHECK = str(ROOT / "scripts" / "maintenance" / "gpu_check.py")
PAGE = str(ROOT / "scripts" / "maintenance" / "gpu_page.py")


@pytest.mark.slow
def test_rehearsal_takes_every_step(python: Command, tmp_path: Path) -> None:
    """No line of the check runs for the first time on a device."""
    done = python(CHECK, f"out={tmp_path}", "device=cpu", "minutes=30", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    steps = ["machine", "correctness", "benchmark", "main", "speeds", "table1"]
    assert list(found) == steps
    assert all(step["exit"] == 0 for step in found.values())
    rows = found["correctness"]["errors"]
    assert {row["backend"] for row in rows} == {"fft", "gemm", "fused"}
    for row in rows:
        if row["dtype"] == "float32":
            # Sums of rows and columns, factors of nine taps: sqrt(alpha) sum |b| < 15.
            length = 2 * sum(row["size"]) + 9 * 15
            assert row["y"] <= rounding(torch.float32, length)
    runs = {**found["main"], **found["speeds"], **found["table1"]}
    runs = {name: run for name, run in runs.items() if isinstance(run, dict)}
    assert all("test/miou" in run["metrics"] for run in runs.values())
    text = (tmp_path / "gpu.md").read_text()
    assert "Not complete" not in text
    assert "| imexnet | 3 |" in text


@pytest.mark.slow
def test_a_step_that_fails_leaves_the_others(python: Command, tmp_path: Path) -> None:
    """Out of memory, a dead process and one that hangs: told, and the next step begins."""
    script = str(Path(__file__).with_name("sabotaged_gpu_check.py"))
    steps = "steps=[machine,correctness,benchmark,main]"
    done = python(script, f"out={tmp_path}", "device=cpu", "minutes=3", steps)
    assert done.returncode == 1
    assert "machine, correctness, benchmark: failed" in done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert [step["exit"] for step in found.values()] == [6, -6, -9, 0]
    assert [step.get("before") for step in found.values()] == [1, 2, 3, None]
    text = (tmp_path / "gpu.md").read_text()
    assert "out of memory" in text
    assert "Ended with exit code -9" in text


def test_pages_are_made_again_of_their_numbers(python: Command, tmp_path: Path) -> None:
    """docs/gpu.md is what docs/figures/gpu.json says."""
    page = tmp_path / "gpu.md"
    numbers = ROOT / "docs" / "figures" / "gpu.json"
    done = python(PAGE, f"results={numbers}", f"page={page}")
    assert done.returncode == 0, done.stderr
    assert page.read_text() == (ROOT / "docs" / "gpu.md").read_text()
