"""Frozen weights and their norms stay as they are, bit for bit, and the rest is trained."""

from functools import partial
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import nn
from torch.utils.data import TensorDataset

from imex_experiments.callbacks import BatchStatistics
from imex_experiments.config.parts import build_parts
from imex_experiments.config.trainer import quiet_trainer
from imex_experiments.data.tensor_data import TensorData
from imex_experiments.errors import ConfigError
from imex_experiments.facts import Facts
from imex_experiments.tasks import SegmentationTask, freeze

CONF = str(Path(__file__).parents[2] / "conf")
FACTS: Facts = {
    "in_channels": 1,
    "out_channels": 2,
    "mean": [0.0],
    "std": [1.0],
    "dtype": "uint8",
    "classes": ["a", "b"],
    "class_frequency": [0.5, 0.5],
}


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        nn.Conv2d(3, 2, 1),
        nn.BatchNorm2d(2),
    )


class Noise(TensorData):
    """Twelve images of random pixels, in training and validation."""

    in_channels, out_channels, image_shape, facts = 1, 2, (1, 6, 6), FACTS

    def setup(self, stage: str | None = None) -> None:
        if not self.splits:
            images = torch.randint(0, 256, (12, *self.image_shape)).to(torch.uint8)
            split = TensorDataset(images, images[:, 0] % 2)
            self.splits = {"train": split, "val": split}


@pytest.mark.parametrize("undecayed", [None, "norms"])
def test_frozen_layers_stay_bit_identical_and_others_are_trained(
    undecayed: str | None,
) -> None:
    """Through epochs with decay, validation and new statistics of the norms."""
    model = network()
    freeze(model, ["0.*", "1.*"])
    adamw = partial(torch.optim.AdamW, lr=0.1, weight_decay=0.5)
    task = SegmentationTask(model, FACTS, adamw, undecayed=undecayed)
    before = {name: value.clone() for name, value in task.state_dict().items()}
    data = Noise(batch_size=4, num_workers=0)
    with initialize_config_dir(CONF, version_base="1.3"):
        cfg = compose("train", overrides=["trainer=cpu", "trainer.max_epochs=2"])
    cfg.trainer.default_root_dir = None
    trainer = quiet_trainer(cfg.trainer, callbacks=[BatchStatistics(8)])
    trainer.fit(task, data)
    task.predict(
        data.samples("val", 2)[0]
    )  # sets evaluation mode, and training mode again
    task.train()
    assert [model[1].training, model[3].training] == [False, True]
    for name, value in task.state_dict().items():
        kept = name.startswith(("network.0", "network.1"))
        if not name.endswith("num_batches_tracked") or kept:
            assert torch.equal(value, before[name]) == kept, name
    assert all(weight.grad is None for weight in model[0].parameters())


def test_a_norm_with_one_trained_weight_is_trained() -> None:
    model = network()
    freeze(model, ["1.weight"])
    assert SegmentationTask(model, FACTS).network[1].training
    freeze(model, ["1.bias"])
    assert not SegmentationTask(model, FACTS).network[1].training


REFUSED = {
    "freeze=[stages.9.*]": r"freeze: 'stages.9.\*' matches no weight.*near: .*stages.0.K.we",
    "freeze=['*']": r"freeze: \['\*'\] leaves no weight to train",
}


@pytest.mark.parametrize("words", REFUSED)
def test_patterns_without_sense_are_refused_before_a_run(words: str) -> None:
    with initialize_config_dir(CONF, version_base="1.3"):
        cfg = compose("train", overrides=["data=qtips", words])
    with pytest.raises(ConfigError, match=REFUSED[words]) as caught:
        build_parts(cfg)
    assert "\n" not in str(caught.value)
