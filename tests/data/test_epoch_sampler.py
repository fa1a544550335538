"""The order of the training images: a permutation that seed and epoch alone decide."""

from hypothesis import given
from hypothesis import strategies as st

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
