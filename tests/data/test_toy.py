"""Points of the two toy problems."""

import math

import pytest
import torch
from conftest import rounding

from imex_experiments.data import Function1dData, SpiralsData
from imex_experiments.data.toy import spiral, wave


def test_wave_has_its_zeros_and_its_bell() -> None:
    zeros = torch.tensor([0.5, 0.3, 0.7, -0.9], dtype=torch.float64)
    # The phase 5 pi (x - 1/2) is 7 pi at most: pi, x, the difference and the product.
    assert wave(zeros).abs().max() <= rounding(torch.float64, 4, 7 * math.pi)
    top = wave(torch.tensor(0.6, dtype=torch.float64))
    assert float(top) == pytest.approx(math.exp(-0.01))


def test_function_splits_lie_in_the_interval_and_repeat_with_their_seed() -> None:
    data, again, other = (Function1dData(seed=s) for s in (1, 1, 2))
    for made in (data, again, other):
        made.setup()
    for split, number in (("train", 100), ("val", 200), ("test", 500)):
        x, y = data.splits[split].tensors
        assert x.shape == y.shape == (number, 1, 1, 1)
        assert -1 <= x.min() < -0.9
        assert 0.9 < x.max() <= 1
        torch.testing.assert_close(y, wave(x))
    points = [made.splits["train"].tensors[0] for made in (data, again, other)]
    assert torch.equal(points[0], points[1])
    assert not torch.equal(points[0], points[2])
    assert data.facts["targets"] == data.splits["train"].tensors[1].flatten().tolist()


def test_spirals_turn_twice_at_a_constant_gap() -> None:
    position = torch.tensor([0.0, 0.25, 0.5, 1.0])
    inner, outer = (spiral(position, arm, turns=2.0, gap=0.2) for arm in (0, 1))
    torch.testing.assert_close(inner.norm(dim=1), position)
    torch.testing.assert_close((outer - inner).norm(dim=1), torch.full((4,), 0.2))
    expected = torch.tensor([[0.2, 0.0], [-0.45, 0.0], [0.7, 0.0], [1.2, 0.0]])
    # Angles up to 4 pi, at a distance of 1.2.
    atol = rounding(torch.float32, 1, 4 * math.pi * 1.2)
    torch.testing.assert_close(outer, expected, atol=atol, rtol=0)


def test_spiral_splits_share_no_point() -> None:
    data = SpiralsData()
    data.setup()
    sizes = {split: len(points) for split, points in data.splits.items()}
    assert sizes == {"train": 100, "val": 100, "test": 1000}
    seen = [
        {tuple(point.flatten().tolist()) for point in data.splits[split].tensors[0]}
        for split in data.splits
    ]
    assert not seen[0] & seen[1]
    assert data.splits["test"].tensors[1].bincount().tolist() == [500, 500]


@pytest.mark.parametrize("kind", [Function1dData, SpiralsData])
def test_a_batch_larger_than_the_split_is_refused(kind: type) -> None:
    with pytest.raises(ValueError, match="batch_size 101 is larger than the training"):
        kind(batch_size=101)
