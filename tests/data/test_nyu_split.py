"""Choice and split of frames: whole scenes on each side, or the numbers that forbid it."""

import logging
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st
from nyu_files import KINDS, SCENES, ended, make, write_small, write_subset

from imex_experiments.data.nyu.file import NyuContents
from imex_experiments.data.nyu.split import (
    frames_of_types,
    split_by_counts,
    split_by_scenes,
)
from imex_experiments.errors import DataError

pytest_plugins = ("nyu_fixtures",)

PATH = Path("some.mat")


def contents(sizes: list[int]) -> NyuContents:
    """Scenes of the given numbers of frames, all kitchens."""
    scenes = [f"s_{scene}" for scene, size in enumerate(sizes) for _ in range(size)]
    return NyuContents("v7.3", scenes, ["kitchen"] * len(scenes), [])


def require_disjoint(found: NyuContents, split: dict[str, list[int]]) -> None:
    scenes = [{found.scenes[i] for i in frames} for frames in split.values()]
    assert sum(map(len, scenes)) == len(set().union(*scenes))
    frames = [i for side in split.values() for i in side]
    assert len(frames) == len(set(frames))


# -------------------------------------------------------------------- scene types


def test_kitchen_is_not_office_kitchen() -> None:
    found = NyuContents("v7.3", list(SCENES), list(KINDS), [])
    assert frames_of_types(PATH, found, ["kitchen"]) == [0, 1, 3, 4]
    assert frames_of_types(PATH, found, ["bedroom", "office_kitchen"]) == [2, 5]
    assert frames_of_types(PATH, found, None) == list(range(6))


def test_absent_type_tells_those_found_with_counts(small: Path, tmp_path: Path) -> None:
    kinds = ["kitchen", "kitchens"]
    code, said = ended(lambda: make(small, scene_types=kinds), tmp_path)
    assert code == 3
    assert "data.scene_types=['kitchens']" in said
    assert "bedroom (1), kitchen (4), office_kitchen (1)" in said
    assert said.count("\n") == 1


def test_types_of_a_subset_without_them_are_refused(tmp_path: Path) -> None:
    path = write_subset(tmp_path / "v5.mat")
    with pytest.raises(DataError, match=r"no sceneTypes .* set data\.scene_types=null"):
        make(path, scene_types=["kitchen"])
    assert sum(map(len, make(path).splits.values())) == 4


# ------------------------------------------------------------------ by proportions


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), min_size=3, max_size=40), st.integers(0, 99))
def test_proportions_never_share_a_scene_and_use_all_frames(
    sizes: list[int], seed: int
) -> None:
    found = contents(sizes)
    split = split_by_scenes(PATH, found, range(sum(sizes)), (0.8, 0.1, 0.1), seed)
    require_disjoint(found, split)
    assert sum(map(len, split.values())) == sum(sizes)
    assert all(split.values())


def test_proportions_are_met_to_within_a_scene() -> None:
    found = contents([3] * 100)
    split = split_by_scenes(PATH, found, range(300), (8, 1, 1), seed=0)
    assert [len(side) for side in split.values()] == pytest.approx([240, 30, 30], abs=3)


def test_seed_decides_the_scenes() -> None:
    found = contents([2] * 20)
    first, again, other = (
        split_by_scenes(PATH, found, range(40), (0.8, 0.1, 0.1), seed)
        for seed in (0, 0, 1)
    )
    assert first == again != other


def test_two_scenes_cannot_fill_three_splits(tmp_path: Path) -> None:
    path = write_small(tmp_path / "x.mat", ["kitchen"] * 5, ["a", "a", "b", "b", "b"])
    code, said = ended(lambda: make(path), tmp_path)
    assert code == 3
    assert "5 frames of 2 scenes cannot fill train, val, test" in said


# ----------------------------------------------------------------------- by counts


def test_counts_of_the_paper() -> None:
    found = contents([3, 1, 4, 2, 3, 2])
    split = split_by_counts(PATH, found, range(15), (8, 2, 1), seed=0)
    assert [len(side) for side in split.values()] == [8, 2, 1]
    require_disjoint(found, split)


@pytest.mark.parametrize(
    ("sizes", "counts"),
    [([5, 3, 3, 1], (6, 5, 1)), ([1] * 1449, (1000, 224, 225)), ([8, 2, 1], (8, 2, 1))],
)
def test_counts_are_met_wherever_they_can_be(
    sizes: list[int], counts: tuple[int, int, int]
) -> None:
    """The first would fail if the largest scene always went where most is lacking."""
    found = contents(sizes)
    split = split_by_counts(PATH, found, range(sum(sizes)), counts, seed=0)
    assert tuple(len(side) for side in split.values()) == counts
    require_disjoint(found, split)


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=6),
    st.tuples(*[st.integers(1, 5)] * 3),
)
def test_counts_are_refused_only_if_no_assignment_meets_them(
    sizes: list[int], counts: tuple[int, int, int]
) -> None:
    sides = np.indices((3,) * len(sizes)).reshape(len(sizes), -1)
    sums = [(np.array(sizes)[:, None] * (sides == k)).sum(0) for k in range(3)]
    possible = bool(
        np.all([s >= n for s, n in zip(sums, counts, strict=True)], 0).any()
    )
    found = contents(sizes)
    if not possible:
        told = re.escape(f"data.counts={list(counts)}")
        with pytest.raises(DataError, match=told):
            split_by_counts(PATH, found, range(sum(sizes)), counts, seed=0)
        return
    split = split_by_counts(PATH, found, range(sum(sizes)), counts, seed=0)
    assert [len(side) for side in split.values()] == list(counts)
    require_disjoint(found, split)


def test_frames_of_a_side_come_from_many_scenes() -> None:
    found = contents([10, 10, 10, 10, 10, 10])
    split = split_by_counts(PATH, found, range(60), (11, 11, 1), seed=0)
    assert len({found.scenes[i] for i in split["train"]}) > 1


def test_too_many_counts_tell_the_numbers(small: Path, tmp_path: Path) -> None:
    def act() -> None:
        make(small, scene_types=["kitchen"], counts=[2, 2, 1])

    code, said = ended(act, tmp_path)
    assert code == 3
    assert "data.counts=[2, 2, 1] needs 5 frames" in said
    assert "found 4 frames of 3 scenes, of sizes 2, 1, 1" in said


# ----------------------------------------------------------------------- officially


def official(path: Path, train: list[int], test: list[int]) -> str:
    columns = {"trainNdxs": train, "testNdxs": test}
    scipy.io.savemat(path, {k: np.array(v)[:, None] for k, v in columns.items()})
    return str(path)


def test_official_split_counts_from_one(small: Path, tmp_path: Path) -> None:
    """Frames 1, 2 and 4 train or validate, 5 and 6 test."""
    file = official(tmp_path / "splits.mat", [1, 2, 4], [5, 6])
    data = make(small, splits_file=file, image_size=[480, 640])
    grey = {k: v.tensors[0][:, 0, 0, 0].tolist() for k, v in data.splits.items()}
    assert grey["test"] == [40, 50]
    assert sorted([grey["train"], grey["val"]]) == [[0, 10], [30]]


@pytest.mark.parametrize(
    ("train", "test", "complaint"),
    [
        ([1, 2, 4], [4, 5], "1 frames are both in trainNdxs (3) and testNdxs (2)"),
        ([1, 2, 4], [7], "frame 7 is not one of 1 ... 6"),
        ([0, 1], [2], "frame 0 is not one of 1 ... 6"),
        (
            [1, 2, 4],
            [6],
            "an empty split: of the 4 frames chosen, 3 are for training and 0",
        ),
        ([1, 2], [4], "2 frames of 1 scenes cannot fill train, val"),
        ([1.5, 2], [4], "expected whole numbers"),
    ],
)
def test_unsound_official_splits_tell_the_numbers(
    train: list[int],
    test: list[int],
    complaint: str,
    small: Path,
    tmp_path: Path,
) -> None:
    file = official(tmp_path / "splits.mat", train, test)
    code, said = ended(
        lambda: make(small, scene_types=["kitchen"], splits_file=file), tmp_path
    )
    assert code == 3
    assert complaint in said
    assert said.count("\n") == 1


def test_official_split_must_be_a_v5_file_of_two_columns(
    small: Path,
    tmp_path: Path,
) -> None:
    with pytest.raises(DataError, match=r"not the v5 file splits\.mat"):
        make(small, splits_file=str(small))
    with pytest.raises(DataError, match="no such file"):
        make(small, splits_file=str(tmp_path / "none.mat"))
    scipy.io.savemat(tmp_path / "x.mat", {"trainNdxs": np.ones((2, 1))})
    with pytest.raises(DataError, match="no 'testNdxs'; it holds: trainNdxs"):
        make(small, splits_file=str(tmp_path / "x.mat"))


def test_a_scene_on_both_official_sides_is_told(
    small: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    file = official(tmp_path / "splits.mat", [1, 4, 5], [2])
    with caplog.at_level(logging.WARNING):
        make(small, splits_file=file)
    assert "puts 1 scenes on both sides, first k_1" in caplog.text
