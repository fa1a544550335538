"""The DataModule: batches, facts of the training split, and refusals."""

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from imex_experiments.data import QtipsData
from imex_experiments.data.cache import _write
from imex_experiments.data.tensor_data import leave_signals_to_parent


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


@pytest.mark.skipif(sys.platform != "linux", reason="signals of Linux")
def test_a_worker_heeds_its_parent_alone() -> None:
    """Ctrl-C, which a terminal sends to all, and SIGTERM, which SLURM does, are others'.

    Python's end sends one SIGTERM to workers that are left, and waits for them.
    """
    numbers = torch.arange(8)
    loader = DataLoader(numbers, num_workers=1, worker_init_fn=leave_signals_to_parent)
    batches: Any = iter(loader)
    assert next(batches) == 0  # the worker has begun, and is some batches ahead
    (worker,) = batches._workers
    for name in ("INT", "TERM"):
        subprocess.run(["kill", f"-{name}", str(worker.pid)], check=True)
    assert next(batches) == 1
    worker.terminate()
    worker.join(30)
    assert worker.exitcode == 0


def test_splits_differ(cache: Path) -> None:
    data = make(cache)
    assert not torch.equal(
        data.splits["val"].tensors[0], data.splits["test"].tensors[0]
    )
    assert not torch.equal(
        data.splits["val"].tensors[0], data.splits["train"].tensors[0][:8]
    )


def test_a_forged_cache_with_labels_that_are_no_class_is_made_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its checksum is right: somebody else wrote it under this name."""
    expected = make(tmp_path).splits["val"].tensors[1]
    (path,) = tmp_path.glob("qtips-val-*")
    _write(path, load_file(path) | {"labels": torch.full_like(expected, 4)})
    assert torch.equal(make(tmp_path).splits["val"].tensors[1], expected)
    assert f"{path} is damaged (labels are in 0 ... 4)" in caplog.text


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


def test_images_on_the_device_come_as_those_of_the_loader(cache: Path) -> None:
    """Two epochs of training, the second one resumed after its first batch."""

    def drawn(on_device: bool) -> list[torch.Tensor]:
        torch.manual_seed(3)
        data = make(cache, train=33, batch_size=8, on_device=on_device)
        loader, tensors = data.train_dataloader(), []
        for state in ({"epoch": 0, "batches": 0}, {"epoch": 1, "batches": 1}):
            loader.load_state_dict(state)
            for batch in loader:
                tensors += batch
        return [*tensors, *next(iter(data.val_dataloader()))]

    loaded, resident = drawn(False), drawn(True)
    assert len(loaded) == 2 * (4 + 3) + 2
    assert all(map(torch.equal, loaded, resident))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_batches_are_drawn_where_the_network_is_trained(cache: Path) -> None:
    data = make(cache, on_device=True)
    data.trainer = pl.Trainer(accelerator="gpu", devices=1, logger=False)
    images, labels = next(iter(data.train_dataloader()))
    assert images.is_cuda
    assert labels.is_cuda


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"batch_size": 33}, "batch_size 33 is larger than the training split of 32"),
        ({"batch_size": 0}, "batch_size must be >= 1, got 0"),
        ({"val": 0}, "val must be >= 1, got 0"),
        ({"on_device": True, "num_workers": 2}, "needs num_workers=0, got 2"),
    ],
)
def test_impossible_sizes_are_refused(
    cache: Path, options: dict[str, int], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        make(cache, **options)


def test_preparing_makes_the_cache_that_setup_reads(tmp_path: Path) -> None:
    """Lightning prepares in one process of a machine, and sets up in all of them."""
    first, other = (QtipsData(str(tmp_path), train=32, val=8, test=8) for _ in range(2))
    first.prepare_data()
    made = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(made) == 3
    for data in (first, other):
        data.setup()
        data.prepare_data()  # Lightning's call, after ours
    assert made == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    for split in ("train", "val", "test"):
        pairs = zip(
            first.splits[split].tensors, other.splits[split].tensors, strict=True
        )
        assert all(torch.equal(*pair) for pair in pairs)


def test_without_a_cache_the_images_are_generated_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    data = QtipsData(str(tmp_path / "file"), train=32, val=8, test=8)
    data.prepare_data()
    data.setup()
    assert caplog.text.count("cannot cache") == 3  # a warning for each split
