"""Refuse a configuration before a folder is made, data is read or a device is touched."""

import copy

import torch
from omegaconf import DictConfig

from imex_experiments.runs.assemble import build_network, lightning, wants_compile
from imex_experiments.runs.build import build, check, refusing
from imex_experiments.runs.resume import refuse_changes

PARTS = (
    "data",
    "model",
    "task",
    "optimizer",
    "scheduler",
    "trainer",
    "callbacks",
    "logger",
)


def preflight(cfg: DictConfig) -> None:
    """Check every class, key and type; build data module, network, optimizer; try a shape.

    ConfigError with key and value for the first thing that cannot work.
    """
    refuse_changes(cfg)
    wants_compile(cfg)
    for part in PARTS:
        check(lightning(cfg.trainer) if part == "trainer" else cfg[part], part)
    data = build(cfg.data, "data")
    network = build_network(cfg, data)
    with refusing("model"):
        shadow = copy.deepcopy(network).to("meta").eval()
        shadow(torch.empty(1, *data.image_shape, device="meta"))
    with refusing("optimizer"):
        optimizer = build(cfg.optimizer, "optimizer")(network.parameters())
    with refusing("scheduler"):
        if make_scheduler := build(cfg.scheduler, "scheduler"):
            make_scheduler(optimizer, total_steps=100)
