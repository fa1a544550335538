"""The generator: what the published data look like, and what seeds promise."""

import time

import pytest
import scipy.ndimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from imex_experiments.data.qtips import (
    BACKGROUND,
    BAR,
    BLACK,
    SPLITS,
    WHITE,
    QtipsRecipe,
    make_qtips,
    split_seed,
)

MARKERS = {1: {WHITE}, 2: {WHITE, BLACK}, 3: {BLACK}}


def test_published_split_is_made_in_well_under_a_second() -> None:
    start = time.perf_counter()
    data = make_qtips(1024, QtipsRecipe(), seed=0)
    assert time.perf_counter() - start < 1
    assert data["images"].shape == (1024, 1, 64, 64)
    assert data["labels"].shape == (1024, 64, 64)
    assert data["images"].dtype == data["labels"].dtype == torch.uint8


def test_bars_have_the_published_size_colours_and_frequency() -> None:
    data = make_qtips(2000, QtipsRecipe(), seed=1)
    images, labels = data["images"][:, 0], data["labels"]
    assert set(images.unique().tolist()) == {BACKGROUND, BAR, WHITE, BLACK}
    assert bool(((images == BACKGROUND) == (labels == 0)).all())
    # Means of the published ranges: 45.5 x 5.5 pixels of 4096. A share has the relative
    # deviations 8.1 / 45.5 and 1.1 / 5.5 of length and width: 0.27; four of 0.27 / 2000^.5.
    assert (labels > 0).double().mean() == pytest.approx(45.5 * 5.5 / 4096, rel=0.024)
    classes = labels.flatten(1).amax(1)
    shares = classes.bincount(minlength=4) / len(classes)
    torch.testing.assert_close(
        shares, torch.tensor([0, 1, 1, 1]) / 3, atol=0.042, rtol=0
    )  # four of (2 / 9 / 2000)^.5


recipes = st.builds(
    QtipsRecipe,
    image_size=st.sampled_from([64, 96]),
    centred=st.just(False),
    objects=st.integers(1, 3),
)


@settings(deadline=None, max_examples=20)
@given(recipes, st.integers(0, 2**31))
def test_every_bar_carries_the_class_of_its_markers(
    recipe: QtipsRecipe, seed: int
) -> None:
    data = make_qtips(4, recipe, seed)
    for image, label in zip(
        data["images"][:, 0].numpy(), data["labels"].numpy(), strict=True
    ):
        for value in range(1, 4):
            regions, number = scipy.ndimage.label(
                label == value, structure=[[1] * 3] * 3
            )
            for region in range(1, number + 1):
                grey = set(image[regions == region].tolist())
                assert grey == {BAR} | MARKERS[value]


def test_upright_bar_covers_length_times_width_pixels() -> None:
    """Angles are whole degrees; at multiples of 90 the pixels can be counted exactly."""
    recipe = QtipsRecipe(lengths=(40, 41), widths=(6, 7))
    upright = 0
    data = make_qtips(3000, recipe, 2)
    for label, image in zip(data["labels"], data["images"], strict=True):
        rows, columns = label.amax(1).count_nonzero(), label.amax(0).count_nonzero()
        if {int(rows), int(columns)} == {6, 40} and int(label.count_nonzero()) == 240:
            upright += 1
            assert int((image != BACKGROUND).sum() - (image == BAR).sum()) == 2 * 36
    assert upright >= 10  # 4 in 360 of 3000 are 33, less four of 33^.5


def test_centred_bars_are_symmetric_about_the_middle() -> None:
    labels = make_qtips(200, QtipsRecipe(), 3)["labels"] > 0
    difference = (labels ^ labels.flip(-2, -1)).sum((-2, -1))
    assert difference.double().mean() < 2  # rounding at the half-open edges


def test_off_centre_bars_use_the_whole_image_and_stay_inside() -> None:
    recipe = QtipsRecipe(image_size=128, centred=False)
    labels = make_qtips(500, recipe, 4)["labels"] > 0
    assert bool(labels.any(0)[:4].any())
    assert bool(labels.any(0)[-4:].any())
    areas = labels.sum((-2, -1))
    assert areas.double().mean() == pytest.approx(
        45.5 * 5.5, rel=0.048
    )  # none is cut off; four of 0.27 / 500^.5


def test_several_bars_do_not_overlap() -> None:
    one, four = (
        make_qtips(200, QtipsRecipe(image_size=128, objects=n, centred=False), 5)[
            "labels"
        ]
        for n in (1, 4)
    )
    ratio = (four > 0).sum() / (one > 0).sum()
    # Four deviations of two means, over 200 and 800 bars: 4 x 0.27 (1/200 + 1/800)^.5.
    assert float(ratio) == pytest.approx(4, rel=0.085)


def test_seeds_decide_the_images_and_splits_never_share_one() -> None:
    same = [make_qtips(8, QtipsRecipe(), 7)["images"] for _ in range(2)]
    assert torch.equal(*same)
    assert not torch.equal(same[0], make_qtips(8, QtipsRecipe(), 8)["images"])
    seeds = [split_seed(seed, split) for seed in range(10) for split in SPLITS]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"lengths": (60, 32)}, "lengths must be"),
        ({"widths": (0, 4)}, "widths must be"),
        ({"lengths": (10, 12)}, "room for two markers"),
        ({"image_size": 48}, "image_size must hold the longest bar, 59 pixels"),
        ({"image_size": 59, "centred": False}, "in any direction"),
        ({"objects": 0}, "objects must be"),
        ({"objects": 2}, "objects must be"),
    ],
)
def test_impossible_recipes_are_refused(
    options: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        QtipsRecipe(**options)


def test_touching_bars_reach_an_edge_and_show_both_markers() -> None:
    recipe = QtipsRecipe(image_size=128, centred=False, touching=True)
    data = make_qtips(300, recipe, 6)
    frame = torch.ones(128, 128, dtype=torch.bool)
    frame[1:-1, 1:-1] = False
    assert bool(((data["labels"] > 0) & frame).flatten(1).any(1).all())
    for image, label in zip(data["images"][:, 0], data["labels"], strict=True):
        assert set(image.unique().tolist()) == (
            {BACKGROUND, BAR} | MARKERS[int(label.max())]
        )
    with pytest.raises(ValueError, match="at the border is not centred"):
        QtipsRecipe(touching=True)
