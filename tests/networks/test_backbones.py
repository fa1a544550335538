"""Networks of other packages: any size, trained, imexified and loaded like our own."""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.nn import functional as F

from imex_experiments import load_run
from imex_experiments.config.build import build
from imex_experiments.config.parts import build_parts, build_task
from imex_experiments.config.preflight import try_batch
from imex_experiments.errors import ConfigError
from imex_experiments.networks import (
    Imexified,
    MonaiSegResNet,
    MonaiUNet,
    Smp,
    TorchvisionSegmentation,
)
from imex_experiments.networks.cost import count_flops, count_parameters
from imex_experiments.runs.checkpoint_io import write_checkpoint
from imex_experiments.runs.layout import BEST, CONFIG
from imex_experiments.terms.diffusion import ImplicitConv2d

CONF = str(Path(__file__).parents[2] / "conf")

SMALL: dict[str, Callable[..., nn.Module]] = {
    "unet": partial(MonaiUNet, widths=[4, 8, 8, 8]),
    "segresnet": partial(MonaiSegResNet, down=[1, 1, 1, 1]),
}
SUMS = {"unet": 7, "segresnet": 10}
"""Four units down and three up; four blocks down, three up, and three skipped sums."""


@pytest.mark.parametrize("kind", SMALL)
def test_images_of_any_size_are_padded_and_cropped(kind: str) -> None:
    """A size that divides is the network's own; another is that of the padded image."""
    network = SMALL[kind](in_channels=3, out_channels=2).eval()
    y = torch.randn(2, 3, 24, 32)
    assert torch.equal(network(y), network.network(y))
    cut = y[..., :19, :29]
    larger = F.pad(cut, (0, 3, 0, 5), mode="reflect")
    assert torch.equal(network(cut), network.network(larger)[..., :19, :29])
    cut = y[..., :3, :29]
    larger = F.pad(cut, (0, 3, 0, 2), mode="reflect")
    larger = F.pad(larger, (0, 0, 0, 3), mode="replicate")
    assert torch.equal(network(cut), network.network(larger)[..., :3, :29])


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("kind", SMALL)
def test_imexified_backbones_differ_by_implicit_steps_alone(
    kind: str, size: int
) -> None:
    torch.manual_seed(0)
    explicit = SMALL[kind](in_channels=1, out_channels=3).eval()
    y = torch.randn(1, 1, size, size)
    for alpha in (0.0, 10.0):
        torch.manual_seed(0)
        changed = Imexified(1, 3, SMALL[kind], alpha=alpha).eval()
        steps = [m for m in changed.modules() if isinstance(m, ImplicitConv2d)]
        assert len(steps) == SUMS[kind]
        added = sum(9 * step.L.channels for step in steps)
        counts = [count_parameters(net)["total"] for net in (explicit, changed)]
        assert counts[1] == counts[0] + added
        assert torch.equal(changed(y), explicit(y)) == (alpha == 0)
        assert (changed.h, changed.alpha) == (1.0, alpha)


def test_flops_of_a_backbone_are_counted_without_arithmetic() -> None:
    """The implicit steps add their transforms; convolutions are those of the original."""
    make = SMALL["unet"]
    explicit = count_flops(make(in_channels=1, out_channels=2), (1, 30, 30))
    implicit = count_flops(Imexified(1, 2, make), (1, 30, 30))
    assert explicit["total"] == explicit["network"] > 2 * 9 * 32 * 32
    assert implicit["total"] > explicit["total"]


BAD: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "one width": (lambda: MonaiUNet(1, 2, [4]), "two or more positive widths"),
    "units": (lambda: MonaiUNet(1, 2, [4, 8], units=-1), "units=-1"),
    "width": (
        lambda: MonaiSegResNet(1, 2, 12),
        "width must be a multiple of 8, got 12",
    ),
    "levels": (
        lambda: MonaiSegResNet(1, 2, up=[1]),
        r"one level more than up.*up=\[1\]",
    ),
    "no sums": (
        lambda: Imexified(1, 2, partial(MonaiUNet, widths=[4, 8], units=0)),
        "no residual addition in MonaiUNet",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_sizes_that_cannot_be_are_refused(kind: str) -> None:
    make, complaint = BAD[kind]
    with pytest.raises(ValueError, match=complaint):
        make()


FEW = ["data.train=16", "data.val=4", "data.test=4", "data.batch_size=8"]


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(CONF, version_base="1.3"):
        return compose("train", [*overrides])


CONFIGURED = {
    "model=monai_unet": MonaiUNet,
    "model=monai_segresnet": MonaiSegResNet,
    "model=imexified model/network=monai_segresnet model.where='network.*'": Imexified,
}


@pytest.mark.parametrize("words", CONFIGURED)
def test_configured_backbones_are_trained_and_loaded(
    words: str, tmp_path: Path
) -> None:
    """A few steps on one batch reduce the loss; the folder of the run gives the task back."""
    cfg = composed(*FEW, *words.split(), "optimizer.lr=0.01")
    parts = build_parts(cfg)
    assert type(parts.network) is CONFIGURED[words]
    try_batch(parts.network, parts.data)
    parts.data.setup()
    task = build_task(cfg, parts)
    optimizer = task.new_optimizer()
    images, labels = parts.data.samples("train", 8)
    losses = []
    for _ in range(4):
        loss = task.loss(task(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    OmegaConf.save(cfg, (tmp_path / CONFIG).parent.mkdir() or tmp_path / CONFIG)
    state = {"state_dict": task.state_dict(), "hyper_parameters": dict(task.hparams)}
    write_checkpoint(state, tmp_path / BEST)
    assert torch.equal(load_run(tmp_path).evaluated(images), task.evaluated(images))


def test_backbones_take_depth() -> None:
    cfg = composed("data=nyu_sample", "data.image_size=[60,84]", "model=monai_unet")
    parts = build_parts(cfg)
    try_batch(parts.network, parts.data)
    assert parts.network(torch.zeros(2, 3, 60, 84)).shape == (2, 1, 60, 84)


OPTIONAL = {"torchvision": TorchvisionSegmentation, "segmentation_models_pytorch": Smp}


@pytest.mark.parametrize("package", OPTIONAL)
def test_optional_packages_work_or_say_why_not(package: str) -> None:
    """Neither imports beside a torch that it is not built for."""
    words = {
        "torchvision": "torchvision_segmentation",
        "segmentation_models_pytorch": "smp",
    }
    node = composed(f"model={words[package]}").model
    try:
        import_module(package)
    except Exception as broken:
        complaint = f"^model: {package} does not import here .*; .*install"
        with pytest.raises(ConfigError, match=complaint):
            build(node, "model", in_channels=1, out_channels=4)
        pytest.skip(f"{package} does not import: {broken}")
    network = build(node, "model", in_channels=1, out_channels=4)
    assert network.eval()(torch.zeros(2, 1, 70, 65)).shape == (2, 4, 70, 65)
