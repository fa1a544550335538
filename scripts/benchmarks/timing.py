"""Measure time and memory of small jobs under equal conditions."""

import random
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Timing:
    """The seconds of repeated runs of a job."""

    samples: tuple[float, ...]

    def as_dict(self) -> dict[str, float]:
        """Return the median, half the distance between the quartiles, and the runs."""
        low, median, high = np.quantile(self.samples, [0.25, 0.5, 0.75])
        return {
            "median": float(median),
            "spread": float(high - low) / 2,
            "runs": len(self.samples),
        }


def interleaved(
    jobs: Mapping[str, Callable[[], object]],
    rounds: int,
    seconds: float,
    clock: Literal["wall", "cpu", "cuda"] = "wall",
) -> dict[str, Timing]:
    """Time every job once per round, after two rounds of warm-up.

    A disturbance hits all jobs of its round. The order in a round is shuffled, so that no
    job always runs after the same other job. At least three rounds are timed; no round
    begins after `seconds`. The clock `cpu` counts the seconds that all threads of this
    process computed, which other work on the machine disturbs less. `cuda` replays CUDA
    graphs and reads the clock of the device.
    """
    clocks = {
        name: _replayed(job) if clock == "cuda" else _watched(job, CLOCKS[clock])
        for name, job in jobs.items()
    }
    samples: dict[str, list[float]] = {name: [] for name in jobs}
    for tick in clocks.values():
        tick()
    begun = time.perf_counter()
    for number in range(1 + rounds):
        shuffled = random.Random(number).sample(sorted(clocks), len(clocks))
        for name in shuffled:
            elapsed = clocks[name]()
            if number > 0:
                samples[name].append(elapsed)
        if number >= 3 and time.perf_counter() - begun > seconds:
            break
    return {name: Timing(tuple(s)) for name, s in samples.items()}


def _watched(
    job: Callable[[], object], now: Callable[[], float]
) -> Callable[[], float]:
    def tick() -> float:
        begun = now()
        job()
        return now() - begun

    return tick


def _replayed(job: Callable[[], object]) -> Callable[[], float]:
    """Return a timer of the job as a CUDA graph, without launch overhead of Python."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            job()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        job()

    def tick() -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3

    return tick


def peak_bytes(job: Callable[[], object], device: str = "cpu") -> int:
    """Return the peak memory of tensors that the job makes, in bytes."""
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        job()
        return torch.cuda.max_memory_allocated() - before
    with _LiveBytes() as live:
        job()
    return live.peak


class _LiveBytes(TorchDispatchMode):
    """A sum of the storages of all results that are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        given = {
            t.untyped_storage()._cdata
            for t in tree_leaves((args, kwargs or {}))
            if isinstance(t, torch.Tensor)
        }
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._known | given:
                    self._add(storage)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size
