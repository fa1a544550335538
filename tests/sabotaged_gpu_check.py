"""gpu_check.py on a device that fails: out of memory, a fault of a kernel, a hang.

Its steps are this script again, in processes of their own.
"""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts" / "maintenance"))
import gpu_check

Found = Iterator[tuple[str, Any]]


def out_of_memory(args: Any, until: float) -> Found:
    yield "before", 1
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def fault(args: Any, until: float) -> Found:
    yield "before", 2
    os.abort()  # as the driver does after an illegal address


def hang(args: Any, until: float) -> Found:
    yield "before", 3
    time.sleep(600)


def fine(args: Any, until: float) -> Found:
    yield "date", "today"


gpu_check.RUN |= {
    "machine": out_of_memory,
    "correctness": fault,
    "benchmark": hang,
    "main": fine,
}
gpu_check.SHARES["benchmark"] = 1  # so long it may hang
gpu_check.run_command(gpu_check.main)
