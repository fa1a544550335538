"""What the YAML files of conf/model build."""

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import nn

from imex_experiments.config.build import build
from imex_experiments.errors import ConfigError
from imex_experiments.installed import CONF
from imex_experiments.networks.cost import count_parameters

MODELS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))


def make(model: str, in_channels: int = 1, *overrides: str) -> nn.Module:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides=[f"model={model}", *overrides])
    return build(cfg.model, "model", in_channels=in_channels, out_channels=1)


@pytest.mark.parametrize("model", MODELS)
def test_every_model_has_h_and_alpha_and_keeps_the_image_size(model: str) -> None:
    try:
        network = make(model, 3, "model.h=0.5", "model.alpha=2")
    except ConfigError as error:
        if model not in ("smp", "torchvision_segmentation"):
            raise
        pytest.skip(str(error))  # with the reason: not installed, or for another torch
    assert network.h == 0.5
    assert network.alpha in (0.0, 2.0)
    shape = (2, 1) if model == "rk4_classifier" else (2, 1, 32, 24)
    assert network(torch.randn(2, 3, 32, 24)).shape == shape


@pytest.mark.parametrize(("implicit", "explicit"), [("imexnet", "resnet")])
@pytest.mark.parametrize("suffix", ["", "_depth"])
def test_twins_differ_in_the_integrator_alone(
    implicit: str, explicit: str, suffix: str
) -> None:
    counts = [count_parameters(make(name + suffix)) for name in (implicit, explicit)]
    for kind in ("convolution", "head", "other"):
        assert counts[0][kind] == counts[1][kind]
    assert counts[1]["diffusion"] == 0


def test_depth_networks_are_near_the_published_sizes() -> None:
    """The paper: 506,928 weights, and about 27,000 more for the implicit layers."""
    resnet, imexnet = (
        count_parameters(make(f"{n}_depth", 3)) for n in ("resnet", "imexnet")
    )
    assert resnet["total"] == 502_976
    assert imexnet["diffusion"] == 26_400
    assert imexnet["total"] == 529_376


def test_dynamic_blocks_is_the_published_network_and_recipe() -> None:
    """The log beside the published code: 251,866 weights in 78 tensors, and its settings.

    Opening 480; per width C five sets of 9 C^2 + 3 C; connectors 608, 2,240 and 4,288 (the
    closing one); head 650.
    """
    with initialize_config_dir(str(CONF), version_base="1.3"):
        words = ["experiment=dynamic_blocks_cifar10", "data.root=/no/where"]
        cfg = compose("train", overrides=words)
    network = build(cfg.model, "model", in_channels=3, out_channels=10)
    assert len(list(network.parameters())) == 78
    blocks = sum(5 * (9 * c * c + 3 * c) for c in (16, 32, 64))
    assert blocks + 480 + 608 + 2240 + 4288 + 650 == 251_866
    assert count_parameters(network)["total"] == 251_866
    assert network.penalty() is None
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    optimizer = build(cfg.optimizer, "optimizer")(network.parameters())
    steps = 120 * 40_000 // 125
    scheduler = build(cfg.scheduler, "scheduler")(optimizer, total_steps=steps)
    assert sorted(scheduler.milestones) == [60 * 320, 80 * 320, 100 * 320]
    assert optimizer.defaults["lr"] == 0.1
    assert optimizer.defaults["momentum"] == 0.9
    assert optimizer.defaults["weight_decay"] == 4e-4
    assert cfg.task.undecayed == "norms"
    data = build(cfg.data, "data")
    assert (data.batch_size, data.validation) == (125, 0.2)
    assert (data.augmentation.flips, data.augmentation.crops) == (True, 4)


def test_main_networks_are_small_and_near_each_other() -> None:
    rivals = ["unet", "resnet_context", "resnet_large_kernels", "resnet_dilated"]
    totals = {
        m: count_parameters(make(m))["total"] for m in ("imexnet", "resnet", *rivals)
    }
    assert max(totals.values()) <= 10_000
    assert max(totals.values()) < 1.05 * min(totals.values())
