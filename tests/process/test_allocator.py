"""Freed memory stays with the process: what was freed is written again without faults."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FAULTS = """
import resource, torch
from imex_experiments.process.allocator import keep_freed_memory
if {keep}:
    assert keep_freed_memory()
def work():
    blocks = [torch.ones(2**23) for _ in range(4)]  # 32 MB each: beyond glibc's own limit
for _ in range(4):
    work()
begun = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - begun)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks glibc")
def test_freed_memory_is_not_faulted_in_again(
    forked: Callable[..., Any], tmp_path: Path
) -> None:
    counts = []
    for keep in (False, True):
        script = tmp_path / f"{keep}.py"
        script.write_text(FAULTS.format(keep=keep))
        done = forked(str(script))
        assert done.returncode == 0, done.stderr
        counts.append(int(done.stdout))
    assert counts[1] < counts[0] / 10
