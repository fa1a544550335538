"""Whole images through a network: in parts, and in tiles that leave no seams."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imex_experiments.networks import AnySize
from imex_experiments.tasks import SegmentationTask
from imex_experiments.tasks.whole import in_parts, tiled

FACTS = {
    "classes": ["a", "b"],
    "class_frequency": [0.5, 0.5],
    "in_channels": 1,
    "out_channels": 2,
    "mean": [100.0],
    "std": [50.0],
    "dtype": "uint8",
}


def test_parts_are_bounded_and_joined_in_order() -> None:
    images, sizes = torch.randn(7, 1, 4, 4), []

    def call(y: Tensor) -> Tensor:
        sizes.append(len(y))
        return 2 * y

    assert torch.equal(in_parts(call, images, 3 * 16), 2 * images)
    assert sizes == [3, 3, 1]
    sizes.clear()
    in_parts(call, images[:2], 1)
    assert sizes == [1, 1]


def local(reach: int) -> nn.Module:
    """A network whose output depends on pixels up to `reach` away, and not further."""
    layers = [
        m for _ in range(reach) for m in (nn.Conv2d(2, 2, 3, padding=1), nn.Tanh())
    ]
    return nn.Sequential(*layers).double()


@pytest.mark.parametrize(
    ("height", "width"), [(50, 70), (32, 33), (20, 90), (16, 16), (64, 64)]
)
def test_tiles_equal_the_whole_image(height: int, width: int) -> None:
    """An overlap of 16 leaves out 4 pixels at the borders of a tile: reach 4 sees no seam.

    Blending rounds a few times: a sum of at most four terms, divided by their weights.
    """
    network, images = local(4), torch.randn(2, 2, height, width, dtype=torch.float64)
    with torch.no_grad():
        whole = network(images)
        found = tiled(network, images, tile=32, overlap=16)
    assert found.shape == whole.shape
    eps = torch.finfo(torch.float64).eps
    assert (found - whole).abs().max() <= 16 * eps * whole.abs().max()


def test_seams_stay_near_the_seams_and_no_tile_exceeds_its_size() -> None:
    """With a reach of 8 only pixels within 8 of the border of a tile may differ."""
    network, images, sizes = local(8), torch.randn(1, 2, 80, 80).double(), []

    def call(y: Tensor) -> Tensor:
        sizes.append(tuple(y.shape[-2:]))
        return network(y)

    with torch.no_grad():
        difference = tiled(call, images, 32, 8) - network(images)
    assert set(sizes) == {(32, 32)}
    starts = [0, 24, 48]
    borders = [*starts[1:], *(start + 32 for start in starts[:-1])]
    pixel = torch.arange(80) + 0.5
    near = torch.stack([(pixel - b).abs() < 8 for b in borders]).any(0)
    far = ~(near[:, None] | near)
    assert far.any()
    eps = torch.finfo(torch.float64).eps
    assert difference[..., far].abs().max() <= 16 * eps
    assert difference.abs().max() > 1e-6


@pytest.mark.parametrize(("height", "width"), [(70, 52), (64, 97)])
def test_tiles_of_a_network_that_coarsens(height: int, width: int) -> None:
    """Blocks of 4 x 4 pixels are the same in tiles as in the whole image."""

    class Coarse(AnySize):
        def outputs(self, y: Tensor) -> Tensor:
            return F.interpolate(F.avg_pool2d(y, 4), scale_factor=4)

    call = Coarse(multiple=4)
    images = torch.randn(1, 1, height, width, dtype=torch.float64)
    difference = tiled(call, images, 32, 16, multiple=4) - call(images)
    assert difference.abs().max() <= 16 * torch.finfo(torch.float64).eps
    misplaced = tiled(call, images, 31, 14) - call(images)
    assert misplaced.abs().max() > 0.1


@pytest.mark.parametrize(
    ("tile", "overlap", "message"),
    [(7, None, "tile must be >= 8"), (16, 9, r"overlap must be in 1 \.\.\. 8, got 9")],
)
def test_impossible_tiles(tile: int, overlap: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiled(nn.Identity(), torch.zeros(1, 1, 20, 20), tile, overlap)


def test_prediction_of_a_task_in_tiles() -> None:
    task = SegmentationTask(nn.Conv2d(1, 2, 3, padding=1), FACTS)
    images = torch.randint(0, 256, (1, 1, 50, 60), dtype=torch.uint8)
    same = task.predict(images) == task.predict(images, tile=32)
    assert same.float().mean() > 0.99  # rounding may turn a tie
