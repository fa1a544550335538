"""The benchmark's clock, its memory meter, and its published baseline."""

import time

import pytest
import torch
from conftest import relative_error, rounding, sensitivity
from solve_jobs import Algorithm1
from timing import interleaved, peak_bytes

from imex_experiments import ImplicitConv2d


def test_jobs_take_turns_and_the_first_rounds_do_not_count() -> None:
    calls: list[str] = []
    jobs = {name: lambda name=name: calls.append(name) for name in "abc"}
    timings = interleaved(jobs, rounds=9, seconds=60)
    rounds = {"".join(calls[i : i + 3]) for i in range(0, len(calls), 3)}
    assert len(calls) == 3 * 11
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert len(rounds) > 1  # no job always follows the same one
    assert all(len(t.samples) == 9 for t in timings.values())


def test_time_is_that_of_the_job() -> None:
    jobs = {"slow": lambda: time.sleep(0.02), "fast": lambda: None}
    timings = interleaved(jobs, rounds=3, seconds=60)
    assert 0.02 <= timings["slow"].as_dict()["median"] < 0.2
    assert timings["fast"].as_dict()["median"] < 0.01


def test_cpu_clock_stands_still_while_nothing_is_computed() -> None:
    (timing,) = interleaved({"a": lambda: time.sleep(0.05)}, 3, 60, "cpu").values()
    assert timing.as_dict()["median"] < 0.02


def test_no_round_is_begun_when_the_time_is_over() -> None:
    (timing,) = interleaved({"a": lambda: None}, rounds=50, seconds=0).values()
    assert len(timing.samples) == 3


def test_peak_memory_counts_what_lives_at_one_time() -> None:
    def job() -> None:
        a = torch.ones(1000)  # 4 kB
        b = a + 1  # 8 kB
        del a
        c = b.view(10, 100) * 2  # a view is no memory: 8 kB
        del b
        c.add_(1)
        torch.ones(500)

    assert peak_bytes(job) == 8000


def test_baseline_of_the_benchmark_is_the_same_operator() -> None:
    """Algorithm 1 as printed gives what the solve gives, so the two are comparable."""
    algorithm = Algorithm1(3)
    layer = ImplicitConv2d(3, alpha=10.0)
    with torch.no_grad():
        layer.L.B.copy_(algorithm.L.B.normal_())
    x = torch.randn(2, 3, 12, 9)
    allowed = rounding(x.dtype, 2 * (12 + 9))
    allowed += rounding(x.dtype, 9, sensitivity(layer.L.B, 10.0))
    assert relative_error(algorithm(x), layer(x)) <= allowed


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_replayed_graphs_are_timed_by_the_device() -> None:
    x = torch.ones(2**20, device="cuda")
    (timing,) = interleaved({"add": lambda: x + 1}, 3, 1.0, "cuda").values()
    assert 0 < timing.as_dict()["median"] < 0.1
