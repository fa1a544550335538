"""Networks of one structure: they do the same work, whatever their numbers are."""

from functools import partial
from typing import Any

from torch import nn

from imex_experiments.integrators import (
    SBDF2,
    ForwardEuler,
    Imex,
    Theta,
)
from imex_experiments.networks import DynamicNet, UNet
from imex_experiments.networks.cost import count_flops
from imex_experiments.networks.structure import structure
from imex_experiments.terms import DoubleLayer, GramDiffusion
from imex_experiments.terms.constraints import SpectralNorm

IMAGE = (1, 8, 8)


def net(integrator: Any = None, **more: Any) -> nn.Module:
    layer = partial(DoubleLayer, norm="tv") if more.pop("tv", False) else DoubleLayer
    given = {"widths": [4, 6], "steps": 2, "layer": layer, "diffusion": GramDiffusion}
    return DynamicNet(1, 3, integrator=integrator or Imex(), **{**given, **more})


def test_numbers_alone_make_no_other_structure() -> None:
    """A sweep over them tries one network, also with weights that are functions."""
    for more in ({}, {"constraint": SpectralNorm}):
        kinds = {structure(net(alpha=a, **more)) for a in (2.5, 3.5, 100, 1e4)}
        assert len(kinds) == 1
        assert structure(net(alpha=2, h=0.25, **more)) == structure(
            net(alpha=3, h=0.3, **more)
        )


def test_what_changes_the_way_through_a_network_changes_its_structure() -> None:
    different = [
        *(net(alpha=2), net(alpha=0), net(alpha="learned"), net(h="learned")),
        *(net(steps=3), net(widths=[4, 8]), net(boundary="neumann")),
        *(net(Theta(theta, precondition=True), tv=True) for theta in (0.0, 0.5, 1.0)),
        *(net(Theta(solver=s), tv=True) for s in ("anderson", "fixed_point")),
        *(net(knots=[0, middle, 2], interpolation="linear", tv=True)
          for middle in (0.5, 1.0, 1.5)),
        *(net(ForwardEuler()), net(SBDF2()), UNet(1, 3, [4, 6])),
    ]  # fmt: skip
    assert len({structure(network) for network in different}) == len(different)


def test_one_structure_is_one_count_of_flops() -> None:
    """Over numbers below, at and above those that a forward pass compares them with."""
    networks = [
        *(net(alpha=a, h=h) for a in (0, 0.5, 1, 3) for h in (0.5, 1)),
        *(net(Theta(theta), tv=True) for theta in (0.0, 0.25, 0.5, 0.75, 1.0)),
        *(net(knots=[0, knot, 2], interpolation="linear", tv=True)
          for knot in (0.25, 0.5, 1.0, 1.25)),
    ]  # fmt: skip
    counts: dict[Any, set[int]] = {}
    for network in networks:
        flops = count_flops(network, IMAGE)["total"]
        counts.setdefault(structure(network), set()).add(flops)
    assert len(counts) < len(networks)
    assert all(len(found) == 1 for found in counts.values())


def test_a_network_that_cannot_be_written_down_is_like_no_other() -> None:
    network = net()
    network.hook = lambda: None
    assert structure(network) != structure(network)
