"""Layouts and pairing, divisions of one folder, label maps, class names, statistics."""

import logging
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from folder_sets import SIZES, folder_data, pixels, save, write_set
from hypothesis import given, settings
from hypothesis import strategies as st

from imex_experiments.data.folder.labels import IGNORED, LabelMap, class_names
from imex_experiments.data.folder.layout import Division, find_splits
from imex_experiments.data.folder.statistics import Moments
from imex_experiments.errors import DataError

NONE = Division()


def names(found: dict) -> dict[str, list[str]]:
    return {split: [pair.name for pair in pairs] for split, pairs in found.items()}


def test_the_default_layout(tmp_path: Path) -> None:
    write_set(tmp_path)
    found = find_splits(tmp_path, "{split}/images", "{split}/labels", NONE)
    assert names(found) == {s: [str(i) for i in range(n)] for s, n in SIZES.items()}


def test_the_layout_of_camvid(tmp_path: Path) -> None:
    for split in SIZES:
        save(tmp_path / split / "a.png", pixels(4, 4))
        save(tmp_path / f"{split}annot" / "a.png", pixels(4, 4, high=2))
    found = find_splits(tmp_path, "{split}", "{split}annot", NONE)
    assert names(found) == {split: ["a"] for split in SIZES}
    assert found["val"][0].target == tmp_path / "valannot/a.png"


@pytest.mark.parametrize(
    ("images", "targets"), [("{name}_img", "{name}_mask"), ("{name}", "{name}_mask")]
)
def test_images_and_masks_in_one_folder(
    images: str, targets: str, tmp_path: Path
) -> None:
    for name in ("x1", "x2"):
        save(tmp_path / f"{images.replace('{name}', name)}.tif", pixels(4, 4))
        save(tmp_path / f"{name}_mask.gif", pixels(4, 4, high=2))
    found = find_splits(tmp_path, images, targets, Division([0.5, 0.5, 0]))
    assert sorted(chain(*names(found).values())) == ["x1", "x2"]


def test_foreign_files_are_named_and_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_set(tmp_path)
    (tmp_path / "train/images/Thumbs.db").write_text("x")
    (tmp_path / "train/images/.hidden").write_text("x")
    with caplog.at_level(logging.WARNING):
        find_splits(tmp_path, "{split}/images", "{split}/labels", NONE)
    assert "skipped Thumbs.db, not of jpg" in caplog.text
    assert "hidden" not in caplog.text


def complaint(root: Path, division: Division = NONE, groups: str | None = None) -> str:
    with pytest.raises(DataError) as caught:
        find_splits(root, "{split}/images", "{split}/labels", division, groups)
    assert "\n" not in str(caught.value)
    assert str(root) in str(caught.value)
    return str(caught.value)


def test_defects_of_a_layout_are_one_line(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set")
    assert "no such folder; give data.root" in complaint(tmp_path / "nowhere")
    (root / "train/labels/2.png").unlink()
    line = complaint(root)
    assert "train/images/2.png: no partner of the name '2'" in line
    assert "4 images, 3 targets" in line
    (root / "train/images/2.png").unlink()
    (root / "train/images/1.jpg").touch()
    assert "has the same name; keep one" in complaint(root)
    (root / "train/images/1.jpg").unlink()
    for path in (root / "val").rglob("*.png"):
        path.unlink()
    assert "val/images: no pictures for the split 'val'" in complaint(root)
    assert "give data.split=" in complaint(tmp_path)


def test_a_missing_test_split_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_set(tmp_path)
    for path in (tmp_path / "test").rglob("*.png"):
        path.unlink()
    found = find_splits(tmp_path, "{split}/images", "{split}/labels", NONE)
    assert list(found) == ["train", "val"]
    assert "no test split" in caplog.text


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 60), st.integers(0, 2**32), st.integers(3, 7))
def test_divisions_use_every_picture_once(number: int, seed: int, folds: int) -> None:
    groups = [str(i) for i in range(number)]
    tested = []
    for division in (
        Division([0.7, 0.15, 0.15], seed=seed),
        *(Division(fold=k, folds=folds, seed=seed) for k in range(folds)),
    ):
        found = division.of(groups)
        assert sorted(chain(*found.values())) == list(range(number))
        assert found == division.of(groups)
        tested += found["test"] if division.folds else []
    assert sorted(tested) == list(range(number))  # each picture is tested in one fold


def test_shares_are_met_and_the_seed_decides() -> None:
    groups = [str(i) for i in range(20)]
    found = Division([0.7, 0.15, 0.15]).of(groups)
    assert {split: len(part) for split, part in found.items()} == {
        "train": 14,
        "val": 3,
        "test": 3,
    }
    assert found != Division([0.7, 0.15, 0.15], seed=1).of(groups)


@pytest.mark.parametrize("number", [3, 4, 5])
def test_few_pictures_are_enough_for_every_split(number: int) -> None:
    groups = [str(i) for i in range(number)]
    found = Division([0.7, 0.15, 0.15]).of(groups)
    assert [len(found[split]) for split in ("val", "test")] == [1, 1]
    found = Division([0.7, 0.3, 0]).of(groups)
    assert not found["test"]
    assert found["val"]


def test_no_group_is_in_two_splits(tmp_path: Path) -> None:
    lines = ["file,scene"]
    for i in range(12):
        save(tmp_path / f"images/{i}.png", pixels(4, 4, seed=i))
        save(tmp_path / f"labels/{i}.png", pixels(4, 4, high=2))
        lines.append(f"{i},{i // 3}")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    division = Division([0.5, 0.25, 0.25])
    found = find_splits(
        tmp_path, "{split}/images", "{split}/labels", division, "t.csv:scene"
    )
    scenes = {s: {int(p.name) // 3 for p in pairs} for s, pairs in found.items()}
    assert sum(map(len, scenes.values())) == 4
    assert {s: len(p) for s, p in found.items()} == {"train": 6, "val": 3, "test": 3}
    line = complaint(tmp_path, division, "t.csv:room")
    assert "column 'room'" in line
    (tmp_path / "t.csv").write_text("file,scene\n0,a")
    assert "no row for the picture" in complaint(tmp_path, division, "t.csv:scene")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"shares": [0.5, 0.5, 0.5]}, "with sum 1"),
        ({"shares": [1.0, 0.0]}, "shares of train, val and test"),
        ({"fold": 0}, "give both"),
        ({"fold": 5, "folds": 5}, r"fold must be in 0 \.\.\. 4"),
        ({"fold": 0, "folds": 2}, "folds must be >= 3"),
        ({"shares": [1, 0, 0], "fold": 0, "folds": 3}, "exclude each other"),
    ],
)
def test_impossible_divisions(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Division(**values)


PATH = Path("here/7.png")


def test_label_maps() -> None:
    mask = np.array([[0, 255]], np.uint8)
    assert LabelMap(2, {0: 0, 255: 1})(mask, PATH).tolist() == [[0, 1]]
    assert LabelMap(2, ignored=(255,))(mask, PATH).tolist() == [[0, IGNORED]]
    many = np.array([[0, 7, 300]], np.int64)
    found = LabelMap(3, {0: 2, 300: 0}, ignored=(7,))(many, PATH)
    assert (found.dtype, found.tolist()) == (np.uint8, [[2, IGNORED, 0]])
    soft = np.array([[0, 90, 128, 255]], np.uint8)
    assert LabelMap(2, threshold=128)(soft, PATH).tolist() == [[0, 0, 1, 1]]
    swapped = LabelMap(2, {0: 1, 1: 0}, threshold=128)
    assert swapped(soft, PATH).tolist() == [[1, 1, 0, 0]]


@pytest.mark.parametrize(
    ("mapping", "classes", "values", "message"),
    [
        (None, 3, [0, 11], "label 11 is none of the classes 0 ... 2; give data.ignore"),
        ({0: 0, 255: 1}, 2, [0, 7], "label 7 is not in data.label_map, which has"),
        ({0: 0, 255: 1}, 2, [0, 90, 128, 255], "4 greys, give data.threshold=128"),
    ],
)
def test_labels_without_a_class_name_their_file_and_the_remedy(
    mapping: dict | None, classes: int, values: list[int], message: str
) -> None:
    with pytest.raises(DataError) as caught:
        LabelMap(classes, mapping)(np.array([values], np.uint8), PATH)
    assert message in str(caught.value)
    assert str(caught.value).startswith("here/7.png: ")


def test_impossible_label_maps() -> None:
    with pytest.raises(ValueError, match=r"label_map: 255 becomes 2, the classes are"):
        LabelMap(2, {255: 2})
    with pytest.raises(ValueError, match="label_map must map these"):
        LabelMap(2, {0: 0, 255: 1}, threshold=128)


def test_class_names(tmp_path: Path) -> None:
    assert class_names(3) == ["class 0", "class 1", "class 2"]
    assert class_names(["a", "b"]) == ["a", "b"]
    (tmp_path / "names.txt").write_text("sky\n\nroad \n")
    assert class_names(str(tmp_path / "names.txt")) == ["sky", "road"]
    for wrong, message in (
        (1, "2 to 255 classes, got 1"),
        (["a", "a"], "'a' is there twice"),
        (["a", "b/c"], "'b/c' is no name"),
    ):
        with pytest.raises(ValueError, match=message):
            class_names(wrong)
    with pytest.raises(DataError, match=r"no such file; data\.classes is a number"):
        class_names(str(tmp_path / "none.txt"))


def test_moments_in_one_pass_are_those_of_all_values() -> None:
    """Values of deviation 1 around 1e6: the condition of the naive sum is 1e12."""
    values = np.random.default_rng(0).standard_normal(999) + 1e6
    moments = Moments()
    for part in np.split(values, [1, 10, 400]):
        moments.add(part)
    moments.add(values[:0])
    eps = np.finfo(float).eps
    assert abs(moments.mean - values.mean()) <= 4 * eps * 1e6 * 999
    assert moments.std == pytest.approx(values.std(ddof=1), rel=1e6 * eps * 999)


def test_statistics_are_those_of_the_training_pixels_that_count(tmp_path: Path) -> None:
    write_set(tmp_path, channels=3)
    void = save(tmp_path / "train/labels/1.png", np.full((16, 16), 9, np.uint8))
    facts = folder_data(tmp_path, ignore_label=9).facts
    counted = [
        pixels(16, 16, 3, seed=i).astype(float).reshape(-1, 3) for i in (0, 2, 3)
    ]
    values = np.concatenate(counted)
    assert void.exists()
    np.testing.assert_allclose(facts["mean"], values.mean(0), rtol=1e-12)
    np.testing.assert_allclose(facts["std"], values.std(0, ddof=1), rtol=1e-12)
    bright = (values[:, 0] >= 128).mean()
    np.testing.assert_allclose(facts["class_frequency"], [1 - bright, bright])
