"""The data module of a folder: batches, sizes, memory, workers, and what it refuses."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from folder_sets import folder_data, pixels, save, write_set

from imex_experiments.data import Augmentation
from imex_experiments.data.folder.labels import IGNORED
from imex_experiments.data.folder.split import Memory, Pictures, Reader
from imex_experiments.errors import DataError

AUGMENT = Augmentation("both", 30, 1.5, 0.3, 1.5, 0.2, 0.2, 0.3)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_set(tmp_path / "set")


def test_batches_of_training_and_evaluation(root: Path) -> None:
    data = folder_data(root, crop=8, views=3)
    train = list(data.train_dataloader())
    assert [(i.shape, t.shape) for i, t in train] == [((2, 1, 8, 8), (2, 8, 8))] * 6
    assert all(i.dtype == t.dtype == torch.uint8 for i, t in train)
    val = list(data.val_dataloader())
    # Two whole images have more pixels than a training batch, so they come singly.
    assert [i.shape for i, _ in val] == [(1, 1, 16, 16)] * 2
    assert torch.equal(val[1][0][0, 0], torch.from_numpy(pixels(16, 16, seed=11)))
    assert data.image_shape == (1, 8, 8)
    assert all(((i[:, 0] >= 128) == t).all() for i, t in [*train, *val])


def test_workers_give_the_same_batches_and_the_seed_others(root: Path) -> None:
    """Over two epochs, by torch's own loop; images larger than the memory are read anew."""
    seen = []
    for workers, memory, seed in ((0, 1.0, 0), (2, 0.0, 0), (0, 1.0, 1)):
        data = folder_data(
            root, crop=8, augment=AUGMENT, num_workers=workers, memory=memory
        )
        torch.manual_seed(seed)
        loader = data.train_dataloader()
        batches = []
        for epoch in range(2):
            loader.sampler.set_epoch(epoch)
            batches += [part.clone() for batch in loader for part in batch]
        seen.append(batches)
    first, second, other = seen
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first[:4], first[4:], strict=True))


def test_images_of_other_sizes(root: Path) -> None:
    """Windows in training; in evaluation whole images, those of one size in a batch."""
    for split, at in (("train", 1), ("val", 1)):
        save(root / split / f"images/{at}.png", pixels(20, 24))
        save(root / split / f"labels/{at}.png", pixels(20, 24, high=2))
    save(root / "val/images/2.png", pixels(20, 24))
    save(root / "val/labels/2.png", pixels(20, 24, high=2))
    with pytest.raises(DataError, match=r"1\.png: 20 x 24 pixels, others have 16 x 16"):
        folder_data(root)
    data = folder_data(root, crop=16, batch_size=4)
    assert [i.shape[2:] for i, _ in data.train_dataloader()] == [(16, 16)]
    shapes = [tuple(i.shape) for i, _ in data.val_dataloader()]
    assert shapes == [(1, 1, 16, 16), (2, 1, 20, 24)]
    assert [len(part) for part in data.samples("val", 3)] == [1, 1]
    assert data.samples("train", 3)[0].shape == (3, 1, 16, 16)
    resized = folder_data(root, resize=[8, 12], batch_size=4)
    assert [i.shape[2:] for i, _ in resized.train_dataloader()] == [(8, 12)]
    singly = folder_data(root, batch_size=1)
    assert {tuple(i.shape[2:]) for i, _ in singly.train_dataloader()} == {
        (16, 16),
        (20, 24),
    }


def test_pictures_are_decoded_once_as_far_as_the_memory_reaches(root: Path) -> None:
    data = folder_data(root)
    pairs, reads = data.splits["train"].pairs, []

    def read(pair: object) -> tuple:
        reads.append(pair)
        return data.reader(pair)

    size = 2 * 16 * 16
    pictures = Pictures(pairs, read, Memory(3 * size))
    for _ in range(3):
        for index in range(4):
            _ = pictures[index]
    assert len(reads) == 4 + 1 + 1
    assert pictures.memory.used == 3 * size


def test_a_survey_is_made_once_for_the_same_files(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = folder_data(root)
    monkeypatch.setattr(Reader, "__call__", None)  # nothing is read again
    again = folder_data(root, crop=8, augment=AUGMENT)
    assert again.facts == first.facts
    assert again.survey.sizes == first.survey.sizes
    monkeypatch.undo()
    with pytest.raises(DataError, match="all training pixels are of one class"):
        folder_data(root, label_map={0: 0, 1: 0})
    save(root / "train/images/0.png", pixels(16, 16, seed=99))
    assert folder_data(root).facts["mean"] != first.facts["mean"]
    (root / "val/images/0.png").write_text("x")
    with pytest.raises(DataError, match="not a readable image"):
        folder_data(root)


def test_a_training_that_overfits_sees_the_same_views(root: Path) -> None:
    data = folder_data(root, crop=8, augment=AUGMENT)
    data.trainer = SimpleNamespace(overfit_batches=1)
    loader, epochs = data.train_dataloader(), []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        epochs.append([part for batch in loader for part in batch])
    assert all(torch.equal(a, b) for a, b in zip(*epochs, strict=True))


def test_depths_in_millimetres_and_what_is_unknown(tmp_path: Path) -> None:
    for split in ("train", "val"):
        depth = np.array([[0, 500, 65535, 2000], [9999, 10001, 1, 3000]], np.uint16)
        save(tmp_path / split / "images/a.png", pixels(2, 4, 3))
        save(tmp_path / split / "depths/a.png", depth)
    more = {"depth_scale": 0.001, "invalid": [0, 65535], "batch_size": 1}
    data = folder_data(tmp_path, "x.DepthTask", **more)
    _, (depths,) = data.samples("val", 1)
    expected = torch.tensor([[0, 0.5, 0, 2.0], [9.999, 0, 0, 3.0]])
    torch.testing.assert_close(depths[0], expected)
    known = expected[expected > 0]
    assert data.facts["depth_mean"] == pytest.approx(float(known.mean()))
    assert data.facts["depth_std"] == pytest.approx(float(known.std()))
    assert data.out_channels == 1
    far = folder_data(tmp_path, "x.DepthTask", **more, depth_range=[0.001, 80.0])
    assert float(far.samples("val", 1)[1].max()) == pytest.approx(10.001)


def test_sixteen_bit_images_stay_numbers(root: Path) -> None:
    for path in root.rglob("images/*.png"):
        save(path, pixels(16, 16, high=65536))
    data = folder_data(root, crop=8, augment=AUGMENT)
    assert data.facts["dtype"] == "float32"
    images, _ = next(iter(data.train_dataloader()))
    assert images.dtype == torch.float32
    assert images.isfinite().all()


def test_ignored_pixels_are_ignored_everywhere(root: Path) -> None:
    for path in root.rglob("labels/*.png"):
        save(path, np.where(pixels(16, 16) < 50, 7, 1).astype(np.uint8))
    save(root / "train/labels/0.png", pixels(16, 16, high=2))
    data = folder_data(root, ignore_label=7)
    labels = torch.cat([t for _, t in data.train_dataloader()])
    assert set(labels.unique().tolist()) == {0, 1, IGNORED}
    assert sum(data.facts["class_frequency"]) == pytest.approx(1)


def rewrite(part: str, array: np.ndarray) -> Callable[[Path], object]:
    return lambda root: save(root / part, array)


DEFECTS: dict[str, tuple[Callable[[Path], object], dict, str]] = {
    "mixed channels": (
        rewrite("val/images/1.png", pixels(16, 16, 3)),
        {},
        r"val/images/1\.png: 3 channels, but .*train/images/0\.png has 1",
    ),
    "mixed depths": (
        rewrite("train/images/2.png", pixels(16, 16, high=65536)),
        {},
        r"2\.png: more than 8 bits, but .* has 8 bits",
    ),
    "a label that is no class": (
        rewrite("test/labels/0.png", np.full((16, 16), 5, np.uint8)),
        {},
        r"test/labels/0\.png: label 5 is none of the classes 0 \.\.\. 1",
    ),
    "another size": (
        rewrite("val/labels/0.png", pixels(8, 16, high=2)),
        {},
        r"val/labels/0\.png: 8 x 16 pixels, its image 0\.png has 16 x 16",
    ),
    "unreadable": (
        lambda root: (root / "test/images/1.png").write_text("x"),
        {},
        r"test/images/1\.png: not a readable image",
    ),
    "crop": (
        lambda root: None,
        {"crop": [8, 32]},
        r"train/images/0\.png: 16 x 16 pixels, smaller than data\.crop=\[8, 32\]",
    ),
    "batch": (
        lambda root: None,
        {"batch_size": 5},
        r"4 training images are fewer than data\.batch_size=5",
    ),
    "one class": (
        lambda root: [
            save(root / f"train/labels/{i}.png", np.ones((16, 16), np.uint8))
            for i in range(4)
        ],
        {},
        "all training pixels are of one class, 'bright'",
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_defects_are_one_line_with_the_file(defect: str, root: Path) -> None:
    spoil, more, message = DEFECTS[defect]
    spoil(root)
    with pytest.raises(DataError, match=message) as caught:
        folder_data(root, **more)
    assert str(root) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"classes": None}, "classes: give their number"),
        ({"crop": [4]}, r"crop must be \[height, width\]"),
        ({"groups": "t.csv:a"}, "groups are for data.split"),
        ({"batch_size": 0}, "batch_size must be >= 1"),
        ({"views": 0}, "views must be >= 1"),
        ({"task": "x.ClassificationTask"}, "give task=segmentation or task=depth"),
    ],
)
def test_impossible_values(more: dict, message: str, root: Path) -> None:
    with pytest.raises(ValueError, match=message):
        folder_data(root, **more)
