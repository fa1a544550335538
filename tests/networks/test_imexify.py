"""Residual networks of other people: torchvision's blocks, MONAI's U-Net, and others."""

import copy
import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from imex_experiments import ImplicitConv2d, imexify


class BasicBlock(nn.Module):
    """As in torchvision: in-place sum, a projection where the shape changes."""

    expansion = 1

    def __init__(self, inplanes: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = None
        if stride != 1 or inplanes != planes:
            projection = nn.Conv2d(inplanes, planes, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(planes))

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class Bottleneck(nn.Module):
    """As in torchvision, but for the sum, which is torch.add."""

    expansion = 4

    def __init__(self, inplanes: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inplanes != 4 * planes:
            projection = nn.Conv2d(inplanes, 4 * planes, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(4 * planes))

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        identity = x if self.downsample is None else self.downsample(x)
        return self.relu(torch.add(identity, out))


DEPTHS: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    50: (Bottleneck, (3, 4, 6, 3)),
}


def residual_network(depth: int, width: int = 8) -> nn.Sequential:
    """torchvision's network of 18 or 50 layers, `width` channels in place of 64."""
    block, numbers = DEPTHS[depth]
    stem = [nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)]
    layers: list[nn.Module] = [*stem, nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    channels = width
    for stage, number in enumerate(numbers):
        planes = width * 2**stage
        blocks = []
        for index in range(number):
            blocks.append(block(channels, planes, 2 if stage and not index else 1))
            channels = planes * block.expansion
        layers.append(nn.Sequential(*blocks))
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5)
    )


class ResNet(nn.Module):
    """Its own forward cannot be traced: it looks at sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.layer1 = nn.Sequential(BasicBlock(8, 8), BasicBlock(8, 8))
        self.layer2 = nn.Sequential(BasicBlock(8, 16, 2), Bottleneck(16, 4))
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] < 8:
            raise ValueError("too small")
        x = self.layer2(self.layer1(self.conv1(x)))
        return self.fc(x.mean((-2, -1)))


class UNetStage(nn.Module):
    """A residual double convolution, the sum as a method, and a skip for the decoder."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        )
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = x.add(self.body(x))
        return self.pool(y), y


def implicit(network: nn.Module) -> dict[str, ImplicitConv2d]:
    return {
        name: part
        for name, part in network.named_modules()
        if isinstance(part, ImplicitConv2d)
    }


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "basic": (lambda: BasicBlock(4, 4), (2, 4, 8, 8), 1),
    "projection": (lambda: BasicBlock(4, 6, 2), (2, 4, 8, 8), 1),
    "bottleneck": (lambda: Bottleneck(8, 2), (2, 8, 8, 8), 1),
    "resnet": (ResNet, (2, 3, 32, 32), 4),
    "unet stage": (lambda: UNetStage(3), (2, 3, 8, 8), 1),
}


def outputs(network: nn.Module, x: Tensor) -> Tensor:
    y = network(x.clone())
    return y[1] if isinstance(y, tuple) else y


@pytest.mark.parametrize("name", CASES)
def test_alpha_zero_changes_nothing_and_weights_are_kept(name: str) -> None:
    make, shape, number = CASES[name]
    network, x = make(), torch.randn(shape)
    before = copy.deepcopy(network.state_dict())
    changed = imexify(network, h=1.0, alpha=0.0)
    assert len(implicit(changed)) == number
    kept = {k: v for k, v in changed.state_dict().items() if not k.endswith("L.B")}
    assert kept.keys() == before.keys()
    assert all(torch.equal(kept[key], before[key]) for key in before)
    for mode in (True, False):
        assert torch.equal(
            outputs(changed.train(mode), x), outputs(network.train(mode), x)
        )
    assert implicit(network) == {}


@pytest.mark.parametrize("name", CASES)
def test_alpha_couples_and_everything_is_trained(name: str) -> None:
    make, shape, _ = CASES[name]
    network, x = make().eval(), torch.randn(shape)
    changed = imexify(network, h=0.5, alpha=10.0)
    assert not torch.allclose(outputs(changed, x), outputs(network, x))
    outputs(copy.deepcopy(changed), x)
    outputs(changed, x).square().sum().backward()
    for step in implicit(changed).values():
        assert step.L.B.grad.abs().max() > 0


def test_the_step_is_y_plus_h_solved_f() -> None:
    """Also where the shape changes: the projection is Y, not f(Y)."""
    for block, x in (
        (BasicBlock(4, 4), torch.randn(2, 4, 8, 8)),
        (BasicBlock(4, 6, 2), torch.randn(2, 4, 8, 8)),
    ):
        block.eval()
        changed = imexify(block, h=0.5, alpha=3.0)
        (step,) = implicit(changed).values()
        f = block.bn2(block.conv2(block.relu(block.bn1(block.conv1(x)))))
        y = x if block.downsample is None else block.downsample(x)
        torch.testing.assert_close(
            changed(x), torch.relu(y + 0.5 * step.L.solve(f, 0.5))
        )


def test_where_chooses_by_name() -> None:
    assert {name.rpartition(".")[0] for name in implicit(imexify(ResNet()))} == {
        *("layer1.0", "layer1.1"),
        *("layer2.0", "layer2.1"),
    }
    last = implicit(imexify(ResNet(), where="layer2.*"))
    assert {name.rpartition(".")[0] for name in last} == {"layer2.0", "layer2.1"}
    assert [step.L.channels for step in last.values()] == [16, 16]


def test_what_cannot_be_done_is_told() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.f = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return x + self.f(x)

    plain = nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU())
    with pytest.raises(
        ValueError, match=r"no residual addition in Sequential, where='\*'"
    ):
        imexify(plain)
    with pytest.raises(ValueError, match="not traceable: the module itself"):
        imexify(ResNet(), where="")
    with pytest.raises(ValueError, match="channels of its residual are unknown"):
        imexify(Bare())
    for wrong in ({"h": -1.0}, {"alpha": -1.0}, {"boundary": "reflect"}):
        with pytest.raises(ValueError, match="must be"):
            imexify(BasicBlock(4, 4), **wrong)


def test_sums_that_are_no_residuals_stay() -> None:
    class TwoBranches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 3, padding=1)

        def forward(self, x: Tensor, shift: float = 1.0) -> Tensor:
            return (self.a(x) + self.b(x)) + 1.0

    with pytest.raises(ValueError, match="no residual addition"):
        imexify(TwoBranches())


class Chain(nn.Module):
    """Many additions in one forward."""

    def __init__(self, additions: int) -> None:
        super().__init__()
        self.f = nn.Conv2d(2, 2, 3, padding=1)
        self.additions = additions

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.additions):
            x = x + torch.relu(self.f(x))
        return x


def test_two_thousand_additions_in_one_forward() -> None:
    """Each node is looked at once: the time does not double with every addition.

    About 1 s, of which most is torch.fx and 2,000 new modules; the better of two tries.
    """
    seconds = []
    for _ in range(2):
        start = time.process_time()
        changed = imexify(Chain(2000))
        seconds.append(time.process_time() - start)
    assert len(implicit(changed)) == 2000
    assert min(seconds) < 2


def test_a_second_implicit_step_is_refused() -> None:
    """It would take the place of the first, with its weights, and be applied twice."""
    once = imexify(ResNet(), where="layer1.*")
    with pytest.raises(ValueError, match=r"layer1\.0 has an implicit step already"):
        imexify(once)
    with pytest.raises(ValueError, match="the module itself has an implicit step"):
        imexify(imexify(BasicBlock(4, 4)))
    assert len(implicit(once)) == 2
    other = imexify(once, alpha=3.0, where="layer2.*")  # the rest, with another alpha
    assert len(implicit(other)) == 4


def test_a_shortcut_that_does_nothing_is_not_the_residual() -> None:
    """An Identity or an empty Sequential is called like a module that computes."""

    class Block(nn.Module):
        def __init__(self, shortcut: nn.Module) -> None:
            super().__init__()
            self.shortcut = shortcut
            self.body = nn.Conv2d(2, 2, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.shortcut(x) + self.body(x)

    x = torch.randn(1, 2, 8, 8)
    for shortcut in (nn.Identity(), nn.Sequential()):
        block = Block(shortcut)
        changed = imexify(block, h=0.5, alpha=3.0)
        (step,) = implicit(changed).values()
        torch.testing.assert_close(
            changed(x), x + 0.5 * step.L.solve(block.body(x), 0.5)
        )


def check_foreign(network: nn.Module, x: Tensor, steps: int) -> None:
    """Assert the number of steps, no change at alpha = 0, and a change at alpha = 10."""
    network.eval()
    with torch.no_grad():
        y = network(x)
        same, coupled = (imexify(network, alpha=alpha) for alpha in (0.0, 10.0))
        assert len(implicit(same)) == len(implicit(coupled)) == steps
        assert torch.equal(same(x), y)
        changed = coupled(x)
    assert changed.shape == y.shape
    assert changed.isfinite().all()
    assert not torch.allclose(changed, y)


SIZES = (32, 64, 224)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("depth", DEPTHS)
def test_residual_networks_of_18_and_50_layers(depth: int, size: int) -> None:
    """At 32 pixels the last stage has one pixel, at 64 pixels 2 x 2."""
    blocks = sum(DEPTHS[depth][1])
    check_foreign(residual_network(depth), torch.randn(2, 3, size, size), blocks)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("depth", DEPTHS)
def test_torchvision_itself(depth: int, size: int) -> None:
    try:
        from torchvision import models
    except (ImportError, RuntimeError) as error:  # built for another torch
        pytest.skip(f"torchvision does not import: {error}")
    network = getattr(models, f"resnet{depth}")(weights=None)
    check_foreign(network, torch.randn(1, 3, size, size), sum(DEPTHS[depth][1]))


@pytest.mark.parametrize("size", SIZES)
def test_residual_unet_of_monai(size: int) -> None:
    """Five units on the way down, four on the way up; some shortcuts are an Identity."""
    UNet = pytest.importorskip("monai.networks.nets").UNet
    network = UNet(
        spatial_dims=2,
        in_channels=1,
        out_channels=2,
        channels=(4, 8, 16, 32, 64),
        strides=(2, 2, 2, 2),
        num_res_units=2,
    )
    check_foreign(network, torch.randn(2, 1, size, size), 9)
