"""The DataModule: hand-computed resizing, masks, batches, facts, cache and refusals."""

import logging
import multiprocessing
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nyu_files import ended, make, write_subset
from safetensors.torch import load_file

from imex_experiments.data.cache import _write
from imex_experiments.data.nyu.conversion import (
    averaging,
    mask_depth,
    resize_depth,
    resize_image,
)
from imex_experiments.data.nyu.data_module import (
    NyuData,
    NyuSampleData,
    _require_frames,
)
from imex_experiments.data.nyu.file import read_frames
from imex_experiments.errors import DataError

pytest_plugins = ("nyu_fixtures",)


def test_averaging_weights_are_the_overlaps() -> None:
    np.testing.assert_allclose(averaging(4, 2), [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
    thirds = [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]]
    np.testing.assert_allclose(averaging(3, 2), thirds, rtol=1e-6)
    np.testing.assert_array_equal(averaging(5, 5), np.eye(5))
    np.testing.assert_allclose(averaging(480, 77).sum(1), 1, rtol=1e-5)


def test_images_are_averaged_and_rounded() -> None:
    image = np.array([[[0, 10, 255, 255], [20, 31, 255, 254]]] * 3, np.uint8)
    expected = [[[15, 255]]] * 3  # 61 / 4 = 15.25 and 1019 / 4 = 254.75
    assert resize_image(image, (1, 2)).tolist() == expected


def test_depths_are_averaged_over_valid_pixels_alone() -> None:
    depth = np.array([[2, 0, 0, 0], [4, 0, 0, 0]], np.float32)
    np.testing.assert_allclose(resize_depth(depth, (1, 2)), [[3, 0]])
    # The first column of three covers 4/3 pixels: all of 2 and a third of 5.
    row = np.array([[2, 5, 8, 1]], np.float32)
    expected = [(2 + 5 / 3) / (4 / 3), (5 * 2 / 3 + 8 * 2 / 3) / (4 / 3)]
    np.testing.assert_allclose(resize_depth(row, (1, 3))[0, :2], expected, rtol=1e-6)


def test_invalid_depths_are_masked_and_counted_by_kind() -> None:
    depth = np.array([[np.nan, np.inf, -np.inf], [0, -2, 3]], np.float32)
    masked, counts = mask_depth(depth)
    assert masked.tolist() == [[0, 0, 0], [0, 0, 3]]
    assert counts.tolist() == [1, 2, 1, 1]


def test_masked_depths_are_told_at_every_setup(
    small: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with h5py.File(small, "r+") as file:
        file["depths"][0, 0, :5] = [np.nan, np.nan, np.inf, 0, -1]
    for _ in range(2):  # the second from the cache
        caplog.clear()
        data = make(small, image_size=[480, 640])
        assert "masked depths: 2 NaN, 1 infinite, 1 zero, 1 negative" in caplog.text
    depths = torch.cat([split.tensors[1] for split in data.splits.values()])
    assert int((depths == 0).sum()) == 5
    assert bool(depths.isfinite().all())


def test_border_is_cropped_before_the_resize(small: Path) -> None:
    with h5py.File(small, "r+") as file:
        for at in (np.s_[:, :, :8], np.s_[:, :, -8:], np.s_[:, :8], np.s_[:, -8:]):
            frame = file["images"][0]
            frame[at] = 255
            file["images"][0] = frame
    whole, inner = (make(small, border=b, image_size=[58, 78]) for b in (0, 8))
    assert int(max(s.tensors[0].max() for s in whole.splits.values())) == 255
    assert int(max(s.tensors[0].max() for s in inner.splits.values())) == 50


def test_splits_hold_the_frames_of_the_file(sample: Path, tmp_path: Path) -> None:
    data = NyuData(str(tmp_path), str(sample), image_size=[480, 640], batch_size=2)
    assert data.image_shape == (3, 480, 640)
    data.setup()
    pairs = [pair for split in data.splits.values() for pair in split]
    assert len(pairs) == 8
    for image, depth in read_frames(sample, range(8)):
        assert any(
            np.array_equal(image, i.numpy()) and np.array_equal(depth, d[0].numpy())
            for i, d in pairs
        )


def test_raw_depths_have_holes_and_depths_do_not(sample: Path, tmp_path: Path) -> None:
    for name, holes in (("depths", False), ("rawDepths", True)):
        data = NyuData(str(tmp_path), str(sample), depth=name, batch_size=1)
        data.setup()
        assert bool((data.splits["train"].tensors[1] == 0).any()) == holes


def test_what_was_prepared_is_not_read_again(small: Path, tmp_path: Path) -> None:
    data = NyuData(str(tmp_path / "cache"), str(small), image_size=[6, 8], batch_size=1)
    data.prepare_data()
    small.unlink()
    assert len(list((tmp_path / "cache").iterdir())) == 1
    data.setup()
    data.prepare_data()  # Lightning's call, after ours
    assert set(data.splits) == {"train", "val", "test"}


def test_batches_and_facts(small: Path) -> None:
    with h5py.File(small, "r+") as file:
        file["depths"][0, :320] = 0
        file["images"][3, 1] = 255
    data = make(small, batch_size=2)
    images, depths = next(iter(data.train_dataloader()))
    assert images.shape == (2, 3, 6, 8)
    assert depths.shape == (2, 1, 6, 8)
    assert images.dtype == torch.uint8
    assert depths.dtype == torch.float32
    images, depths = (t.double() for t in data.splits["train"].tensors)
    facts = data.facts
    assert facts["mean"] == pytest.approx(images.mean((0, 2, 3)).tolist())
    assert facts["std"] == pytest.approx(images.std((0, 2, 3)).clamp_min(1).tolist())
    valid = depths[depths > 0]
    assert facts["depth_mean"] == pytest.approx(float(valid.mean()))
    assert facts["depth_std"] == pytest.approx(float(valid.std()))
    assert (facts["in_channels"], facts["out_channels"]) == (3, 1)
    first, _ = data.samples("val", 1)
    assert torch.equal(first, data.splits["val"].tensors[0][:1])


def test_training_without_a_valid_depth_is_refused(small: Path) -> None:
    with h5py.File(small, "r+") as file:
        file["rawDepths"][...] = 0
    data = make(small, depth="rawDepths")
    with pytest.raises(DataError, match="no valid depth in the 4 training images"):
        _ = data.facts


def test_last_batch_of_one_is_dropped_with_a_warning(
    small: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = make(small, batch_size=3)
    with caplog.at_level(logging.WARNING):
        sizes = [len(images) for images, _ in data.train_dataloader()]
    assert sizes == [3]
    assert "the last batch would hold one image" in caplog.text


def test_workers_give_the_same_batches(small: Path) -> None:
    alone, helped = (list(make(small, num_workers=n).val_dataloader()) for n in (0, 2))
    for ours, theirs in zip(alone, helped, strict=True):
        assert all(map(torch.equal, ours, theirs))


def test_conversion_happens_once_per_file_and_choice(
    small: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = make(small)
    cache = small.parent / "cache"
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr(NyuData, "_convert", lambda self: pytest.fail("read again"))
    second = make(small)
    for split in first.splits:
        pairs = zip(
            first.splits[split].tensors, second.splits[split].tensors, strict=True
        )
        assert all(torch.equal(*pair) for pair in pairs)
    monkeypatch.undo()
    with h5py.File(small, "r+") as file:
        file["images"][...] = 77
    assert int(make(small).splits["train"].tensors[0].max()) == 77
    make(small, depth="rawDepths")
    make(small, seed=1)
    assert len(list(cache.iterdir())) == 4


def test_cached_tensors_are_mapped_not_copied(sample: Path, tmp_path: Path) -> None:
    for _ in range(2):
        data = NyuData(str(tmp_path), str(sample), batch_size=1)
        data.setup()
    name = next(tmp_path.glob("*.safetensors")).name
    assert name in Path("/proc/self/maps").read_text()


FORGED: dict[str, dict[str, object]] = {
    "too few": {"sizes": [1, 1, 1]},
    "too many": {"sizes": [50, 1, 1]},
    "negative": {"sizes": [7, -2, 1]},
    "an empty split": {"sizes": [5, 1, 0]},
    "a sum that wraps": {"sizes": [2**62, 2**62, -(2**63) + 6]},
    "another type": {"sizes": [4.0, 1.0, 1.0]},
    "two splits": {"sizes": [5, 1]},
    "fewer depths": {"depths": torch.ones(5, 1, 6, 8)},
    "fewer frames": {"frames": torch.arange(5)},
    "NaN": {"depths": torch.full((6, 1, 6, 8), torch.nan)},
    "infinite": {"depths": torch.full((6, 1, 6, 8), torch.inf)},
    "behind the camera": {"depths": -torch.ones(6, 1, 6, 8)},
}
"""What differs from a cache of six frames, four of them for training."""


@pytest.mark.parametrize("forged", FORGED.values(), ids=[*FORGED])
def test_a_forged_cache_is_made_anew(
    forged: dict[str, object], small: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its checksum is right: somebody else wrote it under this name."""
    expected = make(small).splits["train"].tensors
    (path,) = (small.parent / "cache").iterdir()
    others = {name: torch.as_tensor(value) for name, value in forged.items()}
    _write(path, (cached := load_file(path)) | others)
    assert cached["sizes"].tolist() == [4, 1, 1]
    found = make(small).splits["train"].tensors
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    assert f"{path} is damaged" in caplog.text


integers = st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 9)


@given(st.tuples(integers, integers, integers))
def test_sizes_that_are_taken_split_the_frames(sizes: tuple[int, int, int]) -> None:
    found = {name: torch.ones(8) for name in ("images", "depths", "frames")}
    try:
        _require_frames({**found, "sizes": torch.tensor(sizes)})
    except ValueError:
        assert sum(sizes) != 8 or min(sizes) < 1
    else:
        assert [len(part) for part in torch.ones(8).split(sizes)] == [*sizes]


def test_too_few_training_frames_tell_both_numbers(small: Path, tmp_path: Path) -> None:
    code, said = ended(lambda: make(small, batch_size=5), tmp_path)
    assert code == 3
    assert "4 training images are fewer than data.batch_size=5" in said


def test_border_wider_than_a_subset_is_refused(tmp_path: Path) -> None:
    path = write_subset(tmp_path / "v5.mat")
    with pytest.raises(DataError, match="border=3 leaves nothing of 6x8 pixels"):
        make(path, border=3)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"scene_types": []}, "scene_types must name at least one type"),
        ({"counts": [8, 2]}, r"counts must be \[train, val, test\], .* got \[8, 2\]"),
        ({"counts": [8, 0, 1]}, "each >= 1"),
        ({"counts": [8, 2, 1], "splits_file": "x"}, "exclude each other"),
        ({"proportions": [1, 0, 0]}, "proportions must be"),
        ({"proportions": [1, 1, float("nan")]}, "proportions must be"),
        ({"depth": "deps"}, "depth must be one of depths, rawDepths, got 'deps'"),
        ({"image_size": [0, 4]}, r"image_size must be .* got \[0, 4\]"),
        ({"image_size": [4]}, "image_size must be"),
        ({"border": 240}, r"border must be in 0 \.\.\. 239, got 240"),
        ({"border": -1}, "border must be"),
        ({"batch_size": 0}, "batch_size must be >= 1, got 0"),
        ({"counts": [2, 1, 1]}, "batch_size 4 is larger than the training split of 2"),
        ({"num_workers": -1}, "num_workers must be >= 0, got -1"),
        ({"seed": -1}, "seed must be >= 0, got -1"),
    ],
)
def test_impossible_arguments_are_refused_before_the_file_is_looked_at(
    options: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        NyuData("cache", "no such file", **options)


# -------------------------------------------------------------------------- sample


def prepared(folder: Path, frames: int = 6) -> NyuSampleData:
    data = NyuSampleData(str(folder), frames=frames, image_size=[12, 16], batch_size=1)
    data.setup()
    return data


def test_sample_is_made_once_and_used(tmp_path: Path) -> None:
    first = prepared(tmp_path)
    (file,) = tmp_path.glob("*.mat")
    made = file.stat().st_mtime_ns
    assert {k: len(v) for k, v in first.splits.items()} == {
        "train": 2,
        "val": 2,
        "test": 2,
    }
    prepared(tmp_path)
    assert file.stat().st_mtime_ns == made
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".mat", ".safetensors"]


def _sum(folder: Path) -> int:
    data = prepared(folder)
    return int(sum(int(split.tensors[0].sum()) for split in data.splits.values()))


def test_several_processes_make_one_sample(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(3) as pool:
        sums = pool.map(_sum, [tmp_path] * 3)
    assert len(set(sums)) == 1
    assert len(list(tmp_path.glob("*.mat"))) == 1
    assert not list(tmp_path.glob("*.partial"))


def test_sample_in_a_blocked_folder_is_one_line(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    code, said = ended(lambda: prepared(blocked), tmp_path)
    assert code == 3
    assert "the sample cannot be written" in said
    assert said.count("\n") == 1


def test_sample_of_no_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="frames must be >= 1, got 0"):
        NyuSampleData("cache", frames=0)
