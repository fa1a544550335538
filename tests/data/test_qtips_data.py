"""The DataModule: batches, facts of the training split, and refusals."""

import logging
from pathlib import Path

import pytest
import torch

from imex_experiments.data import QtipsData


def make(cache: Path, **options: object) -> QtipsData:
    data = QtipsData(
        cache_dir=str(cache), **({"train": 32, "val": 8, "test": 8} | options)
    )
    data.setup()
    return data


def test_batches_are_raw_images_and_labels(cache: Path) -> None:
    images, labels = next(iter(make(cache).train_dataloader()))
    assert images.shape == (16, 1, 64, 64)
    assert labels.shape == (16, 64, 64)
    assert images.dtype == labels.dtype == torch.uint8


def test_splits_differ(cache: Path) -> None:
    data = make(cache)
    assert not torch.equal(
        data.splits["val"].tensors[0], data.splits["test"].tensors[0]
    )
    assert not torch.equal(
        data.splits["val"].tensors[0], data.splits["train"].tensors[0][:8]
    )


def test_facts_are_those_of_the_training_split(cache: Path) -> None:
    data = make(cache)
    images, labels = (t.double() for t in data.splits["train"].tensors)
    facts = data.facts
    assert facts["mean"] == [pytest.approx(float(images.mean()))]
    assert facts["std"] == [pytest.approx(float(images.std()))]
    assert facts["class_frequency"][0] == pytest.approx(
        float((labels == 0).double().mean())
    )
    assert sum(facts["class_frequency"]) == pytest.approx(1)


def test_last_batch_of_one_is_dropped_with_a_warning(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = make(cache, train=33)
    with caplog.at_level(logging.WARNING):
        sizes = [len(images) for images, _ in data.train_dataloader()]
    assert sizes == [16, 16]
    assert "the last batch would hold one image" in caplog.text


def test_workers_give_the_same_images(cache: Path) -> None:
    alone, helped = (
        torch.cat([images for images, _ in make(cache, num_workers=n).val_dataloader()])
        for n in (0, 2)
    )
    assert torch.equal(alone, helped)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"batch_size": 33}, "batch_size 33 is larger than the training split of 32"),
        ({"batch_size": 0}, "batch_size must be >= 1, got 0"),
        ({"val": 0}, "val must be >= 1, got 0"),
    ],
)
def test_impossible_sizes_are_refused(
    cache: Path, options: dict[str, int], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        make(cache, **options)
