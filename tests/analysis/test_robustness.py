"""Corruptions and attacks with known answers."""

from functools import partial

import pytest
import torch
from torch import Tensor

from imex_experiments.analysis.corruptions import CORRUPTIONS, blur, occlusion
from imex_experiments.analysis.robustness import (
    Norm,
    fgsm,
    pgd,
    random_search,
    with_steps_of,
)
from imex_experiments.integrators import ForwardEuler, Imex
from imex_experiments.networks import DynamicNet
from imex_experiments.terms import DoubleLayer, GramDiffusion

NORMS: tuple[Norm, ...] = ("linf", "l2")


def length(change: Tensor, norm: Norm) -> Tensor:
    flat = change.flatten(1)
    return flat.abs().amax(1) if norm == "linf" else flat.norm(dim=1)


@pytest.fixture
def images() -> Tensor:
    torch.manual_seed(0)
    return torch.rand(3, 1, 8, 8, dtype=torch.float64) / 2 + 0.25


@pytest.mark.parametrize("norm", NORMS)
def test_attacks_on_a_linear_loss_reach_the_known_maximum(
    images: Tensor, norm: Norm
) -> None:
    """max <w, delta> is epsilon |w| in the dual norm; random changes stay below."""
    w = torch.randn(1, 8, 8, dtype=torch.float64)

    def loss(x: Tensor) -> Tensor:
        return (w * x).flatten(1).sum(1)

    epsilon = 0.1
    dual = w.abs().sum() if norm == "linf" else w.norm()
    for attack in (fgsm, pgd):
        worst = attack(loss, images, epsilon, norm)
        torch.testing.assert_close(loss(worst) - loss(images), epsilon * dual.expand(3))
        assert bool((length(worst - images, norm) <= epsilon * (1 + 1e-9)).all())
    chance = random_search(loss, images, epsilon, norm, tries=50)
    gain = loss(chance) - loss(images)
    assert bool((gain > 0).all())
    assert bool((gain < 0.9 * epsilon * dual).all())


@pytest.mark.parametrize("norm", NORMS)
def test_pgd_is_stronger_on_a_curved_loss_and_stays_in_ball_and_range(
    images: Tensor, norm: Norm
) -> None:
    def loss(x: Tensor) -> Tensor:
        return torch.sin(40 * x).flatten(1).sum(1) + x.square().flatten(1).sum(1)

    values, start = [loss(images)], images
    for epsilon in (0.02, 0.1, 0.5):
        start = pgd(loss, images, epsilon, norm, steps=20, restarts=3, start=start)
        assert bool((length(start - images, norm) <= epsilon * (1 + 1e-9)).all())
        assert start.min() >= 0
        assert start.max() <= 1
        one_step = loss(fgsm(loss, images, epsilon, norm))
        chance = loss(random_search(loss, images, epsilon, norm, tries=60))
        values.append(loss(start))
        for weaker in (values[-2], one_step, chance):
            assert bool((values[-1] >= weaker).all())


def test_attacks_of_size_zero_change_nothing_and_negative_ones_are_refused(
    images: Tensor,
) -> None:
    for attack in (fgsm, pgd, partial(random_search, tries=2)):
        loss = partial(torch.sum, dim=(1, 2, 3))
        assert torch.equal(attack(loss, images, 0.0, "linf"), images)
        for epsilon in (-0.1, float("nan")):
            with pytest.raises(ValueError, match="epsilon must be >= 0 and finite"):
                attack(loss, images, epsilon, "l2")


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_level_zero_changes_nothing_and_higher_ones_more(name: str) -> None:
    torch.manual_seed(0)
    images = 255 * torch.rand(2, 3, 40, 40)
    images[:, :, 5:-5, 5:-5] += 50
    images.clamp_(0, 255)
    corruption = CORRUPTIONS[name]
    changes = [
        float((corruption.apply(images, level) - images).norm())
        for level in corruption.levels
    ]
    assert changes[0] == 0
    assert changes == sorted(changes)
    assert changes[1] > 0


def test_blur_and_occlusion_are_what_they_say() -> None:
    impulse = torch.zeros(1, 1, 31, 31)
    impulse[0, 0, 15, 15] = 1
    seen = blur(impulse, 2.0)[0, 0]
    offsets = torch.arange(31.0) - 15
    assert float(seen.sum()) == pytest.approx(1)
    assert float((seen.sum(0) * offsets**2).sum()) == pytest.approx(4, rel=0.02)
    torch.testing.assert_close(
        blur(torch.ones(1, 1, 9, 9), 1.0), torch.ones(1, 1, 9, 9)
    )
    hidden = occlusion(torch.arange(36.0).view(1, 1, 6, 6), 2)[0, 0]
    assert hidden[2:4, 2:4].eq(0).all()
    assert int(hidden.eq(0).sum()) == 5  # and the corner that gave its value


@pytest.mark.parametrize("scheme", [ForwardEuler(), Imex()])
def test_longer_steps_are_those_of_another_h(scheme: object) -> None:
    def make(h: float) -> DynamicNet:
        torch.manual_seed(0)
        options = {"layer": DoubleLayer, "diffusion": GramDiffusion, "h": h}
        return DynamicNet(1, 4, [2], scheme, **options).eval()

    y = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(with_steps_of(make(1.0), 1.5)(y), make(1.5)(y))
    with pytest.raises(ValueError, match="factor must be > 0"):
        with_steps_of(make(1.0), 0.0)
