"""How far a pixel sees, where it is known."""

import numpy as np
import pytest
import torch
from torch import nn

from imex_experiments import ImplicitConv2d
from imex_experiments.analysis.receptive_field import (
    distances,
    effective_fields,
    radius,
    share_beyond,
)
from imex_experiments.networks import UNet


def test_radius_and_share_of_a_disc() -> None:
    distance = distances((41, 41), [(20, 20)])
    disc = (distance <= 10).astype(float)
    assert radius(disc, distance, 1.0) == 10
    assert radius(disc, distance, 0.25) == pytest.approx(5, abs=0.5)
    assert share_beyond(disc, distance, 10) == 0
    assert share_beyond(disc, distance, 5) == pytest.approx(0.75, abs=0.03)
    two = distances((5, 9), [(2, 1), (2, 7)])
    assert two[2].tolist() == [1, 0, 1, 2, 3, 2, 1, 0, 1]


def test_field_of_convolutions_is_their_stencil() -> None:
    conv = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    nn.init.ones_(conv.weight)
    network = nn.Sequential(conv, conv)
    fields = effective_fields(
        nn.Sequential(network, nn.Identity()), torch.randn(2, 1, 9, 9)
    )
    line = np.array([0, 0, 1, 2, 3, 2, 1, 0, 0.0]) ** 2
    expected = 2 * np.outer(line, line)  # of two images
    np.testing.assert_allclose(fields["1"], expected, rtol=1e-5)


def test_the_implicit_step_is_seen_from_everywhere() -> None:
    local = nn.Conv2d(1, 1, 3, padding=1)
    images = torch.randn(1, 1, 33, 33)
    distance = distances((33, 33), [(16, 16)])
    seen = [
        radius(effective_fields(nn.Sequential(local, step), images)["1"], distance)
        for step in (ImplicitConv2d(1, 1.0, 1e4), nn.Identity())
    ]
    assert seen[0] > 5 * seen[1]


def test_unet_has_a_field_at_every_level() -> None:
    torch.manual_seed(0)
    network = UNet(1, 4, [4, 6, 8]).eval()
    fields = effective_fields(network, torch.randn(8, 1, 32, 32))
    assert {"encoders.0", "encoders.2", "decoders.1", "head"} <= fields.keys()
    assert all(field.shape == (32, 32) for field in fields.values())
    assert all(field.sum() > 0 for field in fields.values())
    assert radius(0 * fields["head"], distances((32, 32), [(16, 16)])) == 0  # none
