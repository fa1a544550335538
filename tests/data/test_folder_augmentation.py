"""Image and target move together, as a function of seed, epoch and image alone."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from torch import Tensor

from imex_experiments.data.folder.augmentation import Augmentation, Transform
from imex_experiments.data.folder.labels import IGNORED

EVERYTHING = Augmentation("both", 30, 1.5, 0.3, 1.5, 0.2, 0.2, 0.3)
MOVES = Augmentation("both", 90, 1.5)


def coded(height: int = 24, width: int = 32) -> tuple[Tensor, Tensor]:
    """An image whose grey is 100 x its label, in squares of 8 pixels, of labels 0 to 2."""
    rows, columns = torch.arange(height) // 8, torch.arange(width) // 8
    label = ((rows[:, None] + columns) % 3).byte()
    return (100 * label)[None], label


@pytest.mark.parametrize("size", [None, (12, 20)])
@pytest.mark.parametrize("augmentation", [Augmentation("both"), MOVES])
def test_image_and_label_move_together(
    augmentation: Augmentation, size: tuple[int, int] | None
) -> None:
    """Where a pixel is not at an edge between labels, its grey still is that of its label."""
    image, label = coded()
    exact = not augmentation.warps
    moved_far = 0
    for index in range(20):
        seen, target = Transform(augmentation, size)(image, label, 0, 0, index)
        assert seen.shape[1:] == target.shape == (size or (24, 32))
        inside = target != IGNORED
        matches = seen[0] == 100 * target
        # Bilinear interpolation mixes greys only within a pixel of an edge.
        assert matches[inside].float().mean() >= (1.0 if exact else 0.6)
        flat = torch.nn.functional.max_pool2d(target[None].float(), 5, 1, 2)[0]
        low = -torch.nn.functional.max_pool2d(-target[None].float(), 5, 1, 2)[0]
        plain = inside & (flat == low)  # edges beyond the window are not seen
        assert matches[2:-2, 2:-2][plain[2:-2, 2:-2]].all()
        moved_far += not torch.equal(target, label[: target.shape[0]])
    assert moved_far > 10


def test_a_quarter_turn_is_exact() -> None:
    """An image of odd sides turned by 90 degrees about its middle pixel."""
    from imex_experiments.data.folder.augmentation import _warped

    image = torch.randint(0, 256, (1, 9, 9), dtype=torch.uint8)
    label = torch.randint(0, 200, (9, 9), dtype=torch.uint8)
    half = np.pi / 2
    turned, target = _warped(image, label, (9, 9), half, 1.0, [0.0, 0.0], [0.5, 0.5])
    assert torch.equal(target, label.rot90(-1))
    assert torch.equal(turned, image.rot90(-1, (1, 2)))


def test_pixels_from_outside_do_not_count() -> None:
    """At half the size a quarter of the window shows the image; the rest is unknown."""
    from imex_experiments.data.folder.augmentation import _warped

    ones = torch.ones(1, 16, 16)
    window = (16, 16), 0.0, 0.5, [0.0, 0.0], [0.5, 0.5]
    _, label = _warped(ones, ones[0].byte(), *window)
    assert (label == 1).sum() == 64
    assert (label == IGNORED).sum() == 16 * 16 - 64
    _, depth = _warped(ones, 2 * ones, *window)
    assert (depth > 0).sum() == 64
    assert depth.max() == 4.0  # half as large is twice as far


@pytest.mark.parametrize("name", [f.name for f in fields(Augmentation)])
def test_each_change_depends_on_seed_epoch_and_image_alone(name: str) -> None:
    given = {name: "both" if name == "flip" else 2.0 if name == "scale" else 0.9}
    transform = Transform(Augmentation(**given), (12, 20), [90.0] * 3, [50.0] * 3)
    image = torch.randint(0, 256, (3, 24, 32), dtype=torch.uint8)
    label = torch.randint(0, 3, (24, 32), dtype=torch.uint8)

    def seen(seed: int, epoch: int, index: int) -> tuple[int, ...]:
        torch.manual_seed(seed + epoch + index)  # plays no part
        view, target = transform(image, label, seed, epoch, index)
        assert view.dtype == torch.uint8
        assert view.shape == (3, 12, 20)
        return (*view.flatten().tolist(), *target.flatten().tolist())

    views = {k: seen(*k) for k in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]}
    assert len(set(views.values())) == 4
    assert all(seen(*key) == view for key, view in views.items())


def test_threads_do_not_matter() -> None:
    image = torch.randint(0, 256, (3, 48, 64), dtype=torch.uint8)
    label = torch.randint(0, 3, (48, 64), dtype=torch.uint8)
    transform = Transform(EVERYTHING, (40, 40), [90.0] * 3, [50.0] * 3)
    views, before = [], torch.get_num_threads()
    for threads in (1, 3):
        torch.set_num_threads(threads)
        views.append(transform(image, label, 0, 1, 2))
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*views, strict=True))


def test_without_changes_an_image_stays_as_it_is() -> None:
    image, label = coded()
    seen, target = Transform()(image, label, 0, 0, 0)
    assert torch.equal(seen, image)
    assert torch.equal(target, label)
    deep = torch.rand(1, 8, 8) * 65535
    assert torch.equal(Transform()(deep, torch.rand(1, 8, 8), 0, 0, 0)[0], deep)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"flip": "up"}, "flip must be none, horizontal"),
        ({"scale": 0.5}, r"scale must be in 1 \.\.\. 10, got 0.5"),
        ({"rotate": -1}, r"rotate must be in 0 \.\.\. 180"),
        ({"cutout": float("nan")}, "cutout must be in 0"),
    ],
)
def test_impossible_changes_are_refused(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augmentation(**values)
