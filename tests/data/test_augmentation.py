"""Flips and crops: by hand, and a function of seed, epoch and image alone."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from cifar10_stand_in import write_stand_in
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from imex_experiments.data import Cifar10Data
from imex_experiments.data.augmentation import FlipsAndCrops
from imex_experiments.data.cifar10 import ARCHIVE


def indexed(images: int, height: int = 3, width: int = 5) -> Tensor:
    """Images in which every pixel has a value of its own; none is black."""
    return torch.arange(1, images * 2 * height * width + 1).view(-1, 2, height, width)


def shown(augment: FlipsAndCrops, images: Tensor, seed: int, epoch: int) -> Tensor:
    numbers = torch.arange(len(images))
    return augment(images, numbers, len(images), seed, epoch)


def every_outcome(image: Tensor, flips: bool, crops: int) -> list[Tensor]:
    """All flips and crops of one image, by slices of an image laid into a black one."""
    _, height, width = image.shape
    outcomes = []
    for flipped in (image, torch.flip(image, [2])) if flips else (image,):
        black = torch.zeros(2, height + 2 * crops, width + 2 * crops, dtype=image.dtype)
        black[:, crops : crops + height, crops : crops + width] = flipped
        outcomes += [
            black[:, i : i + height, j : j + width]
            for i in range(2 * crops + 1)
            for j in range(2 * crops + 1)
        ]
    return outcomes


@pytest.mark.parametrize("flips", [True, False])
@pytest.mark.parametrize("crops", [0, 1, 2])
def test_each_image_is_one_of_its_flips_and_crops(flips: bool, crops: int) -> None:
    """Over 4,000 images of the same pixels all outcomes come equally often, to 6 sigma."""
    image = indexed(1)
    images = shown(FlipsAndCrops(flips, crops), image.expand(4000, -1, -1, -1), 0, 0)
    outcomes = torch.stack(every_outcome(image[0], flips, crops)).flatten(1)
    same = (images.flatten(1)[:, None] == outcomes).all(2)
    assert same.any(1).all()
    p = 1 / len(outcomes)
    spread = 6 * (4000 * p * (1 - p)) ** 0.5
    assert ((same.sum(0) - 4000 * p).abs() <= spread).all()


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(12)), st.integers(0, 2**64 - 1), st.integers(0, 500))
def test_batches_do_not_matter(order: list[int], seed: int, epoch: int) -> None:
    augment, images = FlipsAndCrops(True, 4), indexed(12)
    whole = shown(augment, images, seed, epoch)
    for batch in torch.tensor(order).split(5):
        assert torch.equal(augment(images[batch], batch, 12, seed, epoch), whole[batch])


def test_epochs_seeds_and_images_differ() -> None:
    image = indexed(1).expand(50, -1, -1, -1)
    views = [
        shown(FlipsAndCrops(True, 4), image, seed, epoch)
        for seed in range(3)
        for epoch in range(3)
    ]
    assert len({tuple(view.flatten().tolist()) for view in views}) == 9
    assert len({tuple(one.flatten().tolist()) for one in views[0]}) > 10


def test_negative_borders_are_refused() -> None:
    with pytest.raises(ValueError, match="crops must be >= 0, got -1"):
        FlipsAndCrops(crops=-1)


class Recorder(pl.LightningModule):
    """Keeps what the loops give it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: dict[str, list[Tensor]] = {"train": [], "val": []}

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        self.seen["train"] += batch
        return self.weight.square()

    def validation_step(self, batch: list[Tensor], index: int) -> None:
        self.seen["val"] += batch

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_only_training_images_change_and_workers_do_not_matter(tmp_path: Path) -> None:
    write_stand_in(tmp_path / ARCHIVE, per_file=3)

    def fit(**options: object) -> tuple[Cifar10Data, dict[str, list[Tensor]]]:
        pl.seed_everything(5, verbose=False)
        data = Cifar10Data(
            str(tmp_path), validation=0.2, batch_size=5, verify=False, **options
        )
        trainer = pl.Trainer(
            max_epochs=2,
            accelerator="cpu",
            logger=False,
            num_sanity_val_steps=0,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        recorder = Recorder()
        trainer.fit(recorder, data)
        return data, recorder.seen

    data, alone = fit(flips=True, crops=4)
    _, helped = fit(flips=True, crops=4, num_workers=2)
    _, plain = fit()
    assert all(map(torch.equal, alone["train"], helped["train"]))
    assert len(alone["train"]) == len(plain["train"]) == 2 * 2 * 3  # images and labels
    assert all(map(torch.equal, alone["val"], plain["val"]))
    assert all(map(torch.equal, alone["train"][1::2], plain["train"][1::2]))
    assert not torch.equal(
        torch.cat(alone["train"][::2]), torch.cat(plain["train"][::2])
    )
    first, second = (torch.cat(alone["train"][i : i + 6 : 2]) for i in (0, 6))
    assert not torch.equal(first.sort(0).values, second.sort(0).values)
    images = data.splits["train"].tensors[0]  # what everybody else reads
    assert torch.equal(data.samples("train", 3)[0], images[:3])
