"""Refuse a configuration before a folder is made, data is read or a device is touched."""

import copy
from typing import Any

import torch
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from imex_experiments.runs.assemble import build_network, lightning, wants_compile
from imex_experiments.runs.build import build, check, refusing
from imex_experiments.runs.errors import exit_code
from imex_experiments.runs.resume import is_finished, refuse_changes

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


class Preflight(Callback):
    """Hydra's hook for `preflight`: it runs before Hydra makes the folder of a single run."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            preflight(config)
        except Exception as error:
            # Hydra turns an Exception of a callback into a warning, but not SystemExit.
            raise SystemExit(exit_code(error)) from error
        if is_finished(config):
            print(f"resume={config.resume}: this run is finished, nothing to do")
            raise SystemExit(0)
