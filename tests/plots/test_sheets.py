"""Sheets of any number of classes and any size stay readable and bounded."""

import numpy as np
import pytest

from imex_experiments.plots.depth import depth_sheet
from imex_experiments.plots.segmentation import (
    colour_labels,
    overlay,
    segmentation_sheet,
)
from imex_experiments.plots.sheet import LARGEST, NEUTRAL, PALETTE, WIDEST, Swatches

CAMVID = "sky building pole road pavement tree sign fence car pedestrian bicyclist void"


def sheet(height: int, width: int, classes: list[str], samples: int = 6) -> np.ndarray:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (samples, 1, height, width), dtype=np.uint8)
    truth = rng.integers(0, len(classes), (samples, height, width), dtype=np.uint8)
    probabilities = np.ones((samples, len(classes), height, width), np.float32)
    return segmentation_sheet(images, truth, probabilities, classes, ignored=255)


@pytest.mark.parametrize(
    ("height", "width", "classes"),
    [
        (360, 480, CAMVID.split()),
        (1000, 1500, ["background", "a"]),
        (30, 2000, ["a", "b", "c"]),
        (64, 64, ["a very long name of a class, cut before it meets the next"] * 4),
    ],
)
def test_sheets_are_bounded(height: int, width: int, classes: list[str]) -> None:
    samples = 1 if height == 1000 else 3
    found = sheet(height, width, classes, samples)
    assert found.shape[1] <= WIDEST
    assert found.shape[0] <= samples * (LARGEST + 10) + 200


def test_small_images_are_enlarged_to_whole_pixels() -> None:
    found = sheet(32, 32, ["a", "b"], samples=1)
    assert found.shape[1] == 6 + 5 * (128 + 6)


def test_twelve_classes_have_twelve_colours_and_none_is_the_grey_of_no_class() -> None:
    colours = colour_labels(np.arange(12, dtype=np.uint8)[None], ignored=255)[0]
    assert len({tuple(colour) for colour in colours}) == 12
    assert len({tuple(colour) for colour in PALETTE}) == len(PALETTE)
    assert tuple(NEUTRAL) not in {tuple(colour) for colour in PALETTE}
    label = np.array([[0, 255]], np.uint8)
    assert (colour_labels(label, ignored=255)[0, 1] == NEUTRAL).all()
    assert len(Swatches(["a", "b"], "not counted").pictures(13)) == 3


def test_a_background_alone_is_not_tinted() -> None:
    image, label = np.full((1, 1, 2), 200, np.uint8), np.array([[0, 1]], np.uint8)
    assert (overlay(image, label)[0, 0] == 200).all()
    assert (overlay(image, label, background=False)[0, 0] != 200).all()


def test_depths_without_a_known_pixel_are_grey() -> None:
    images = np.zeros((1, 3, 40, 40), np.uint8)
    found = depth_sheet(images, np.zeros((1, 40, 40)), np.ones((1, 40, 40)))
    truth = found[22 + 10, 6 + (120 + 6) + 10]
    assert (truth == NEUTRAL).all()
