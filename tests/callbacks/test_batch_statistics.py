"""The statistics of a batch norm are those of its present weights."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from imex_experiments.callbacks import BatchStatistics


class Module(nn.Sequential):
    device = "cpu"


def test_running_statistics_become_the_average_over_the_samples() -> None:
    torch.manual_seed(0)
    module = Module(nn.BatchNorm2d(2)).eval()
    module[0].running_mean.fill_(99.0)
    samples = torch.randn(10, 2, 5, 5) * 3 + 1
    data = SimpleNamespace(
        batch_size=4,
        image_shape=(2, 5, 5),
        samples=lambda split, n: (samples[:n], None),
    )
    state = torch.get_rng_state()
    BatchStatistics(images=9).on_validation_start(
        SimpleNamespace(datamodule=data), module
    )
    batches = samples[:4], samples[4:8]  # the ninth would be a batch of one
    mean = torch.stack([batch.mean((0, 2, 3)) for batch in batches]).mean(0)
    var = torch.stack([batch.var((0, 2, 3)) for batch in batches]).mean(0)
    torch.testing.assert_close(module[0].running_mean, mean)
    torch.testing.assert_close(module[0].running_var, var)
    assert module[0].momentum == 0.1
    assert not module.training
    assert torch.equal(torch.get_rng_state(), state)


def test_large_images_are_fewer() -> None:
    """Images of 4096 x 4096 pixels: two at a time are passed through, not 256."""
    asked = []

    def samples(split: str, number: int) -> tuple[torch.Tensor]:
        asked.append(number)
        return (torch.randn(2, 2, 5, 5),)

    data = SimpleNamespace(batch_size=4, image_shape=(1, 4096, 4096), samples=samples)
    module = Module(nn.BatchNorm2d(2))
    BatchStatistics().on_validation_start(SimpleNamespace(datamodule=data), module)
    assert asked == [2]


def test_a_single_image_is_refused() -> None:
    with pytest.raises(ValueError, match="images must be >= 2, got 1"):
        BatchStatistics(images=1)
