"""Operations and bytes against counts by hand; the roofline and the ring in closed form."""

from functools import partial

import pytest
import torch
from roofline import (
    CONVOLUTIONS,
    KINDS,
    OTHERS,
    TRANSFORMS,
    Machine,
    Operation,
    count_operations,
    exchange_seconds,
    kept_bytes,
    training_step,
)
from torch import nn

from imex_experiments.integrators import ForwardEuler, Imex, TimeGrid
from imex_experiments.networks import DynamicBlock
from imex_experiments.networks.cost import count_flops
from imex_experiments.terms import DoubleLayer, GramDiffusion

B, C, H, W = 3, 4, 16, 10


def block(integrator: ForwardEuler | Imex) -> DynamicBlock:
    operator = partial(GramDiffusion, alpha=1.0)
    return DynamicBlock(C, TimeGrid.uniform(1.0, 1), integrator, DoubleLayer, operator)


def test_a_convolution_by_hand() -> None:
    """2 x 9 C^2 per pixel, twice that backward; inputs and results once each."""
    layer, x = nn.Conv2d(C, C, 3, padding=1, bias=False), torch.randn(B, C, H, W)
    pixels, weights = B * H * W, 9 * C * C
    (forward,) = count_operations(lambda: layer(x))
    images = 4 * pixels * C
    assert forward == Operation(
        CONVOLUTIONS, 2 * weights * pixels, 2 * images + 4 * weights
    )
    step = count_operations(training_step(layer, x))
    flops = [o.flops for o in step if o.kind == CONVOLUTIONS]
    assert flops == [forward.flops, 2 * forward.flops]


def test_views_and_room_are_free_and_broadcasts_small() -> None:
    x, scale = torch.randn(B, C, H, W), torch.randn(C, 1, 1)
    assert (
        count_operations(lambda: torch.empty_like(x.transpose(1, 2)[0].detach())) == []
    )
    (product,) = count_operations(lambda: x * scale.expand(B, C, H, W))
    assert product == Operation(OTHERS, 0, 4 * (2 * B * C * H * W + C))


def test_transforms_read_and_write_once_for_each_axis() -> None:
    z = torch.randn(B, C, H, W, dtype=torch.complex64)
    (fft,) = count_operations(lambda: torch.fft.fft2(z))
    points = H * W
    log = torch.tensor(points).log2().item()
    assert fft.kind == TRANSFORMS
    assert fft.flops == pytest.approx(5 * B * C * points * log, abs=1)
    assert fft.bytes == 2 * 2 * 8 * B * C * points


def test_counting_on_the_meta_device_is_counting_what_runs() -> None:
    x = torch.randn(B, C, H, W)
    real = count_operations(training_step(block(ForwardEuler()), x))
    ghost = block(ForwardEuler()).to("meta")
    assert count_operations(training_step(ghost, x.to("meta"))) == real
    assert {o.kind for o in real} == {CONVOLUTIONS, OTHERS}


def test_forward_agrees_with_the_flops_of_the_summary() -> None:
    ghost = nn.Sequential(block(Imex())).to("meta")  # eval would keep the symbol
    x = torch.empty(1, C, H, W, device="meta")
    with torch.no_grad():
        counted = count_operations(lambda: ghost(x))
    assert sum(o.flops for o in counted) == count_flops(ghost, (C, H, W))["total"]


def test_the_roofline_is_the_longest_of_three_times() -> None:
    machine = Machine("m", products=10.0, vector=2.0, bandwidth=5.0, launch=3.0)
    assert machine.seconds(Operation(CONVOLUTIONS, 100, 5)) == 10
    assert machine.seconds(Operation(OTHERS, 100, 5)) == 50
    assert machine.seconds(Operation(TRANSFORMS, 1, 100)) == 20
    assert machine.seconds(Operation(TRANSFORMS, 1, 1)) == 3
    work = [Operation(CONVOLUTIONS, 100, 5), Operation(OTHERS, 0, 20)]
    assert machine.predict(work) == dict(zip(KINDS, (10, 0, 4), strict=True))


def test_bytes_and_flops_of_a_solve_grow_with_the_batch_but_for_the_symbol() -> None:
    """Twice the images cost less than twice the work: the symbol is made once."""

    def totals(batch: int) -> tuple[int, int]:
        x = torch.empty(batch, C, H, W, device="meta")
        counted = count_operations(training_step(block(Imex()).to("meta"), x))
        return sum(o.flops for o in counted), sum(o.bytes for o in counted)

    two, four, eight = map(totals, (2, 4, 8))
    for few, some, many in zip(two, four, eight, strict=True):
        assert many - some == pytest.approx(2 * (some - few), rel=1e-5)
        assert few < some < 2 * few


@pytest.mark.parametrize(("devices", "sent"), [(1, 0.0), (2, 1.0), (4, 1.5)])
def test_the_ring_sends_twice_all_weights_but_a_share(
    devices: int, sent: float
) -> None:
    assert exchange_seconds(10, devices, link=40.0) == pytest.approx(sent)


def test_what_a_forward_pass_keeps() -> None:
    """Two convolutions: their inputs and weights, the leaf once; no result of the last."""
    layer = nn.Sequential(
        *(nn.Conv2d(C, C, 3, padding=1, bias=False) for _ in range(2))
    )
    x = torch.randn(B, C, H, W)
    assert kept_bytes(training_step(layer, x)) == 4 * (2 * x.numel() + 2 * 9 * C * C)
