"""Run and sweep folders as train.py leaves them, without the training."""

import csv
import json
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

INTEGRATORS = {
    "imexnet": "imex_experiments.integrators.Imex",
    "resnet": "imex_experiments.integrators.ForwardEuler",
}


def make_job(
    folder: Path,
    model: str = "imexnet",
    seed: int = 0,
    h: float = 1.0,
    alpha: float = 1.0,
    score: float = 0.5,
    test: float | None = None,
    state: str = "finished",
    monitor: str = "val/miou",
    mode: str = "max",
    words: tuple[str, ...] = (),
    **more: Any,
) -> Path:
    """A run whose monitored metric is `score` on validation and `test` on the test split.

    `words` are further overrides; `more` goes to metrics.json. `state` "begun" leaves
    .hydra/ alone, "running" the status.json that kill -9 leaves.
    """
    hydra = folder / ".hydra"
    hydra.mkdir(parents=True)
    asked = [f"model={model}", f"model.alpha={alpha}", f"model.h={h}", f"seed={seed}"]
    OmegaConf.save(OmegaConf.create([*asked, *words]), hydra / "overrides.yaml")
    config = OmegaConf.create({"seed": seed, "model": {"h": h, "alpha": alpha}})
    if model in INTEGRATORS:
        config.model.integrator = {"_target_": INTEGRATORS[model]}
    for key, value in (word.split("=") for word in words if "/" not in word):
        OmegaConf.update(config, key, value, force_add=True)
    OmegaConf.save(config, hydra / "config.yaml")
    choices = {"model": model, "data": "qtips"}
    choices |= dict(word.split("=") for word in words if "/" in word)
    runtime = {"hydra": {"runtime": {"choices": choices}}}
    OmegaConf.save(OmegaConf.create(runtime), hydra / "hydra.yaml")
    if state == "begun":
        return folder
    status: dict[str, Any] = {"state": state, "model": model, "seed": seed}
    status |= {
        "device": "cpu",
        "git_commit": "0123456789ab",
        "versions": {"torch": "2"},
    }
    if state != "running":
        effective = alpha if model == "imexnet" else 0.0
        status |= {"h": h, "alpha": effective, "monitor": monitor, "mode": mode}
        status |= {"exit_code": 0 if state == "finished" else 5}
        reason = None if state == "finished" else "loss is nan at step 3"
        status |= {"reason": reason}
    (folder / "status.json").write_text(json.dumps(status))
    if state == "finished":
        name = monitor.removeprefix("val/")
        metrics = {monitor: score, f"test/{name}": score if test is None else test}
        metrics |= {"val/loss": 1.0 - score, "parameters": 7700, "flops": 62e6}
        metrics |= {"train_seconds": 12.5, **more}
        (folder / "metrics.json").write_text(json.dumps(metrics))
        _write_history(folder / "metrics.csv", monitor, score)
    return folder


def make_sweep(folder: Path, jobs: list[dict[str, Any]], words: list[str]) -> Path:
    """A sweep of these jobs, in folders named as Hydra names them."""
    for number, job in enumerate(jobs):
        swept = ",".join(f"{k}={job[k]}" for k in ("model", "seed") if k in job)
        make_job(folder / f"{number}_{swept}", **job)
    overrides = {"task": words, "hydra": ["hydra.mode=MULTIRUN"]}
    OmegaConf.save(
        OmegaConf.create({"hydra": {"overrides": overrides}}), folder / "multirun.yaml"
    )
    return folder


def _write_history(path: Path, monitor: str, score: float, epochs: int = 4) -> None:
    """A curve that rises to the score: score * epoch / epochs."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "step", monitor, "val/published_iou"])
        rises = [(e, score * e / epochs) for e in range(1, epochs + 1)]
        writer.writerows([e, 3 * e, value, value] for e, value in rises)
