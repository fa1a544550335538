"""The order of the training images: a permutation that seed and epoch alone decide."""

import json
from multiprocessing import get_context
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from torch import distributed

from imex_experiments.data.epoch_sampler import EpochSampler, FixedSampler

SEEDS = st.integers(0, 2**64 - 1)


def order(size: int, seed: int, epoch: int) -> list[int]:
    sampler = EpochSampler(size, seed)
    sampler.set_epoch(epoch)
    return list(sampler)


@given(st.integers(0, 50), SEEDS, st.integers(0, 1000))
def test_every_index_once_and_the_same_again(size: int, seed: int, epoch: int) -> None:
    assert sorted(order(size, seed, epoch)) == list(range(size))
    assert order(size, seed, epoch) == order(size, seed, epoch)


def test_epochs_and_seeds_differ() -> None:
    orders = {tuple(order(40, s, e)) for s in range(10) for e in range(10)}
    assert len(orders) == 100


def test_a_fixed_order_is_that_of_epoch_0_also_from_a_position_on() -> None:
    sampler = FixedSampler(40, seed=3)
    for epoch in (0, 1, 5):
        sampler.set_epoch(epoch)
        assert list(sampler) == order(40, 3, 0)
    sampler.start = 8
    assert list(sampler) == order(40, 3, 0)[8:]


def test_processes_share_the_batches_of_one(tmp_path: Path) -> None:
    """Batches of 2 in each of two are batches of 4, from any position; 11 is odd."""

    def take(rank: int) -> None:
        store = f"file://{tmp_path}/store"
        distributed.init_process_group("gloo", store, rank=rank, world_size=2)
        sampler = EpochSampler(11, seed=3)
        sampler.set_epoch(2)
        found = [len(sampler), list(sampler)]
        sampler.start = 4
        (tmp_path / str(rank)).write_text(json.dumps([*found, list(sampler)]))
        distributed.destroy_process_group()

    processes = [get_context("fork").Process(target=take, args=(n,)) for n in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    whole = order(11, 3, 2)
    ones, twos = (json.loads((tmp_path / str(rank)).read_text()) for rank in (0, 1))
    assert (ones[0], twos[0]) == (6, 6)
    for batch in range(0, 6, 2):
        expected = [*whole, whole[0]][2 * batch : 2 * batch + 4]
        assert {*ones[1][batch : batch + 2], *twos[1][batch : batch + 2]} == {*expected}
    assert (ones[2], twos[2]) == (ones[1][4:], twos[1][4:])
