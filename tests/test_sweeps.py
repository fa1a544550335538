"""Sweeps as a user runs them: real jobs, a real Ray, and real ways to die."""

import csv
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, Command
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf, open_dict

from imex_experiments.errors import ConfigError
from imex_experiments.networks import DynamicNet
from imex_experiments.runs.folder import alone_in
from imex_experiments.sweeps.jobs import run_in_child
from imex_experiments.sweeps.plan import check_points
from imex_experiments.sweeps.points import points_of
from imex_experiments.sweeps.slurm import room

TRAIN = str(ROOT / "train.py")
TUNE = str(ROOT / "scripts" / "tune.py")
SABOTAGED = str(ROOT / "tests" / "sabotaged_train.py")
TINY = [
    "trainer.max_epochs=2",
    "data.train=16",
    "data.val=4",
    "data.test=4",
    "model.widths=[2,4]",
]


def sweep_of(cwd: Path) -> Path:
    (sweep,) = (cwd / "outputs/sweeps").iterdir()
    return sweep


def statuses(sweep: Path) -> list[dict[str, Any]]:
    """status.json of every job, in the order of their numbers."""
    jobs = {int(job.name.split("_")[0]): job for job in sweep.glob("[0-9]*_*")}
    return [json.loads((jobs[n] / "status.json").read_text()) for n in sorted(jobs)]


ENDS = {101: 1, 102: 7, 103: 5, 104: 6}
"""How `sabotaged_train.py` ends a job of a seed: it raises, exits, diverges, is killed."""


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        pytest.param(1, [104], id="1 good"),
        pytest.param(12, [*ENDS], id="12 good", marks=pytest.mark.slow),
    ],
)
def test_failing_jobs_stop_nobody_and_resume_runs_exactly_those(
    good: int, bad: list[int], forked: Command, tmp_path: Path
) -> None:
    seeds = [bad[0], *range(good), *bad[1:]]
    words = ["-m", f"seed={','.join(map(str, seeds))}", *TINY]
    done = forked(SABOTAGED, *words, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    sweep = sweep_of(tmp_path)
    first = statuses(sweep)
    assert [status["seed"] for status in first] == seeds
    ends = {status["seed"]: status["exit_code"] for status in first}
    assert ends == {**dict.fromkeys(range(good), 0), **{s: ENDS[s] for s in bad}}
    for seed in bad:
        number = seeds.index(seed)
        assert re.search(rf"job {number} \(seed={seed}\) failed", done.stdout)
    assert "killed by SIGKILL" in done.stdout
    assert "Traceback" not in done.stderr
    assert f"sweep.resume={sweep.relative_to(tmp_path)}" in done.stderr

    (sweep / "multirun.yaml").write_text("hydra:\n  over")  # a kill as Hydra writes it
    done = forked(SABOTAGED, f"sweep.resume={sweep}", cwd=tmp_path, HARMLESS="1")
    assert done.returncode == 0, done.stderr
    second = statuses(sweep)
    assert {status["state"] for status in second} == {"finished"}
    again = [b["seed"] for a, b in zip(first, second, strict=True) if a != b]
    assert again == bad


PROCESSES = "hydra_plugins.imex_launchers.ProcessesLauncher"


@pytest.mark.parametrize(
    ("error", "done", "code"),
    [(RuntimeError("a node died"), 1, 1), (KeyboardInterrupt(), 0, 130)],
)
def test_a_sweep_is_reported_whatever_its_launcher_raises(
    error: BaseException, done: int, code: int, forked: Command, tmp_path: Path
) -> None:
    """After `done` jobs, with one that seems to run and one that never began."""
    sweep = tmp_path / "sweep"
    sweep.mkdir()

    def failing() -> None:
        launcher: Any = Plugins.instance().class_name_to_class[PROCESSES]
        launch = launcher.launch

        def fail(self: Any, overrides: Any, initial_job_idx: int) -> None:
            launch(self, overrides[:done], initial_job_idx)
            (sweep / "1_seed=1/status.json").write_text('{"state": "running"}')
            raise error

        launcher.launch = fail

    words = ["-m", "seed=0,1,2", *TINY, "hydra.sweep.dir=sweep"]
    ended = forked(TRAIN, *words, cwd=tmp_path, before=failing)
    assert ended.returncode == code, ended.stderr
    rows = list(csv.DictReader((sweep / "results.csv").open()))
    never, killed = "ended before it began", "killed, or its machine failed"
    lost = [("interrupted", reason) for reason in (never, killed, never)]
    expected = [("finished", "")] * done + lost[done:]
    assert [(row["state"], row["reason"]) for row in rows] == expected
    assert [row["seed"] for row in rows] == ["0", "1", "2"]
    for reason in (never, killed):
        assert reason in (sweep / "summary.md").read_text()
        assert reason in ended.stdout
    again = (
        f"{3 - done} of 3 jobs have no result; run only those with: python train.py "
    )
    again += "sweep.resume=sweep"
    last = {130: "error: interrupted by Ctrl-C\n"}
    node = f"error: {again} (hydra.launcher: RuntimeError: a node died)\n"
    assert ended.stderr == last.get(code, node)
    assert again in ended.stdout + ended.stderr


def test_a_job_without_its_data_is_recorded_in_its_folder(tmp_path: Path) -> None:
    """The run itself refuses before it writes; what an attempt before it wrote is gone."""
    before = {"state": "failed", "exit_code": 5, "reason": "the loss is nan"}
    (tmp_path / "status.json").write_text(json.dumps(before))
    status = run_in_child(TRAIN, [*TINY, "data.root=/no/where"], tmp_path)
    assert (status["state"], status["exit_code"]) == ("failed", 3)
    assert status["reason"].startswith("/no/where: no such folder")
    assert json.loads((tmp_path / "status.json").read_text()) == status
    assert "/no/where" in (tmp_path / "console.log").read_text()


def test_a_sweep_has_one_launcher(forked: Command, tmp_path: Path) -> None:
    """A second one ends at once, and nothing of the sweep or its job has changed."""
    sweep = tmp_path / "sweep"
    (job := sweep / "0_seed=0").mkdir(parents=True)
    words = {"hydra": ["hydra.mode=MULTIRUN"], "task": ["seed=0", *TINY]}
    OmegaConf.save({"hydra": {"overrides": words}}, sweep / "multirun.yaml")
    status = {"state": "running"}
    (job / "status.json").write_text(json.dumps(status))
    (job / "metrics.csv").write_text("epoch\n")
    files = sorted(sweep.rglob("*"))
    with alone_in(sweep):
        done = forked(TRAIN, f"sweep.resume={sweep}", cwd=tmp_path)
    assert done.returncode == 6, done.stderr
    (line,) = done.stderr.splitlines()
    assert f"{sweep}: another process is still writing this sweep" in line
    assert sorted(sweep.rglob("*")) == sorted([*files, sweep / ".lock"])
    assert json.loads((job / "status.json").read_text()) == status


def test_a_job_that_is_running_elsewhere_is_waited_for(tmp_path: Path) -> None:
    """As one on a cluster is, whose launcher was killed: nothing of it is touched."""
    (tmp_path / "checkpoints").mkdir()
    (kept := tmp_path / "metrics.csv").write_text("epoch\n")
    (tmp_path / "status.json").write_text('{"state": "running"}')
    with ThreadPoolExecutor(1) as pool:
        with alone_in(tmp_path):
            status = pool.submit(run_in_child, TRAIN, ["seed=-1"], tmp_path)
            time.sleep(1)
            assert kept.exists()
            assert not status.done()
            (tmp_path / "status.json").write_text('{"state": "finished"}')
        assert status.result(60) == {"state": "finished"}
    assert kept.exists()


@pytest.mark.slow
def test_sigterm_of_ray_ends_its_jobs_in_order(
    environment: dict[str, str], tmp_path: Path
) -> None:
    ray = ["hydra/launcher=ray_gpu", "hydra.launcher.ray.remote.num_gpus=0"]
    words = ["-m", "seed=0,1", *ray, *TINY]
    launcher = subprocess.Popen(
        [sys.executable, TRAIN, *words, "trainer.max_epochs=3000"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(tmp_path, "outputs/sweeps/*/0_*/checkpoints/last.ckpt")
    launcher.terminate()
    _, said = launcher.communicate(timeout=60)
    assert launcher.returncode == 143, said
    assert said.splitlines()[-1] == "error: ended by SIGTERM"
    assert "*** SIGTERM" not in said
    wait_for(tmp_path, "outputs/sweeps/*/0_*/status.json", contains='"interrupted"')


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [3, 8])
def test_ray_gives_each_job_a_device_of_its_own(
    jobs: int, python: Command, tmp_path: Path
) -> None:
    """Logical GPUs: Ray shares them out like real ones, and no job touches CUDA."""
    ray = ["hydra/launcher=ray_gpu", "hydra.launcher.ray.init.num_gpus=2"]
    seeds = ",".join(map(str, range(jobs)))
    done = python(TRAIN, "-m", f"seed={seeds}", *ray, *TINY, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    spans: dict[str, list[tuple[datetime, datetime]]] = {"0": [], "1": []}
    for status in statuses(sweep_of(tmp_path)):
        ends = (datetime.fromisoformat(status[key]) for key in ("started", "finished"))
        spans[status["visible_devices"]].append((next(ends), next(ends)))
    assert sum(map(len, spans.values())) == jobs
    for device in spans.values():
        assert device, "both devices are used"
        for (_, end), (start, _) in pairwise(sorted(device)):
            assert end <= start


@pytest.mark.slow
def test_a_launcher_that_is_killed_takes_its_job_along_and_resumes_to_the_same_results(
    forked: Command, environment: dict[str, str], tmp_path: Path
) -> None:
    words = ["-m", "seed=0", *TINY, "trainer.max_epochs=12"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
    done = forked(TRAIN, *words, cwd=whole)
    assert done.returncode == 0, done.stderr

    launcher = subprocess.Popen(
        [sys.executable, TRAIN, *words],
        cwd=cut,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    checkpoint = wait_for(cut, "outputs/sweeps/*/0_*/checkpoints/last.ckpt")
    launcher.kill()
    launcher.wait()
    first = checkpoint.parents[1]
    wait_for(cut, "outputs/sweeps/*/0_*/status.json", contains='"interrupted"')
    assert not (first / "metrics.json").exists()

    done = forked(TRAIN, f"sweep.resume={sweep_of(cut)}", cwd=cut)
    assert done.returncode == 0, done.stderr
    same, again = (sweep_of(f) / "results.csv" for f in (whole, cut))
    assert same.read_bytes() == again.read_bytes()


def wait_for(folder: Path, pattern: str, contains: str = "") -> Path:
    """The one file that matches, as soon as it is there and says so."""
    for _ in range(3600):
        for path in folder.glob(pattern):
            if contains in path.read_text(errors="replace"):
                return path
        time.sleep(0.05)
    raise AssertionError(f"no {pattern} with {contains!r}")


def test_check_tells_the_plan_and_makes_nothing(
    forked: Command, tmp_path: Path
) -> None:
    words = ["-m", "model=imexnet,resnet", "model.h=0.5,1", "check=true", *TINY]
    done = forked(TRAIN, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    plan = dict(re.findall(r"│ ([\w ]+?) +│ (.+?) +│", done.stdout))
    assert plan["jobs"] == "4"
    assert plan["at once"] == "1"
    assert plan["largest"] == "model=imexnet model.h=0.5"
    assert re.fullmatch(r"about \d+ s", plan["its training"])
    assert re.fullmatch(r"[012]\.\d GiB", plan["its memory"])
    assert list(tmp_path.iterdir()) == []


def test_points_are_those_that_hydra_makes() -> None:
    """Groups, values, additions and deletions; seeds alone make no other network."""
    swept = [
        *("model=imexnet,resnet", "seed=0,1,2", "optimizer.lr=0.1,0.2"),
        *("+callbacks.hparams.hparams.x=${seed}", "~callbacks.figures", *TINY),
        *("trainer=cpu", "scheduler=constant", "data.cache_dir='a b'"),
    ]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("train", return_hydra_config=True)
        with open_dict(config):
            config.hydra.job.config_name = "train"
            config.hydra.overrides.task = swept
        points = points_of(config)
        loader = GlobalHydra.instance().config_loader()
        assert len(points) == 12
        for point in points:
            expected = loader.load_sweep_config(config, point.words)
            found = [
                {key: value for key, value in cfg.items_ex(False) if key != "hydra"}
                for cfg in (point.config, expected)
            ]
            assert found[0] == found[1]
        kinds = check_points(points)
        assert [kind.words[:3] for kind in kinds] == [
            [f"model={model}", "seed=0", f"optimizer.lr={lr}"]
            for model in ("imexnet", "resnet")
            for lr in (0.1, 0.2)
        ]


def test_points_that_differ_in_numbers_alone_are_tried_once() -> None:
    """And are all built: the last one is refused, with its name."""
    alphas = [*range(2, 20), -1]
    swept = [f"model.alpha={','.join(map(str, alphas))}", "model.h=0.5", *TINY]
    passes: list[str] = []

    def count(module: torch.nn.Module, inputs: Any) -> None:
        if isinstance(module, DynamicNet):
            passes.append(type(module).__name__)

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("train", return_hydra_config=True)
        with open_dict(config):
            config.hydra.job.config_name = "train"
            config.hydra.overrides.task = swept
        hook = torch.nn.modules.module.register_module_forward_pre_hook(count)
        with (
            hook,
            pytest.raises(ConfigError, match=r"^point model\.alpha=-1: model: alpha"),
        ):
            check_points(points_of(config))
    assert len(passes) <= 2  # a batch, and an image whose arithmetic is counted


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["seed=1,-1"], "point seed=-1: seed=-1: expected an integer from 0 to"),
        (["model.h=1,-1"], "point model.h=-1: model: h must be > 0 and finite, got -1"),
        (["model.alpha=1,x"], "model.alpha"),
        (["model=imexnet,unknown"], "model=unknown: no such choice"),
        (["seed=0,1", "trainer.devices=2"], "n_jobs=<number of GPUs> gives each job"),
        (
            ["seed=0,1", "hydra/launcher=ray_gpu"],
            "hydra/launcher=processes needs no GPU",
        ),
        (
            ["seed=0,1", "hydra/launcher=ray_cpu"],
            "hydra/launcher=processes hydra.launc",
        ),
        (
            ["seed=0,1", "hydra.launcher.n_jobs=0"],
            "n_jobs=0: expected an integer from 1",
        ),
        (["sweep.resume=nowhere"], "sweep.resume=nowhere: not a sweep"),
    ],
)
def test_a_sweep_that_cannot_work_is_refused_before_its_first_job(
    words: list[str], complaint: str, forked: Command, tmp_path: Path
) -> None:
    done = forked(TRAIN, "-m", *words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert complaint in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


ABSENT = """
import sys, types
sys.modules["optuna"] = None
sys.modules["hydra_plugins"] = types.ModuleType("hydra_plugins")
sys.modules["hydra_plugins"].__path__ = []
"""
"""A sitecustomize.py: as if Optuna and the launchers were not installed."""


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([TRAIN, "-m", "hydra/launcher=ray_gpu"], "hydra-ray-launcher is missing: pip"),
        ([TUNE, "model.h=interval(0.5,1)"], "optuna is missing: pip install -c"),
    ],
)
def test_what_is_not_installed_is_named_with_the_install_line(
    words: list[str], complaint: str, python: Command, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(ABSENT)
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = python(*words, cwd=tmp_path, PYTHONPATH=paths)
    assert done.returncode == 2, done.stderr
    assert complaint in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_slurm_is_asked_for_where_it_is(forked: Command, tmp_path: Path) -> None:
    words = ["-m", "seed=0,1", *TINY, "hydra/launcher=slurm", "hydra.sweep.dir=."]
    done = forked(TRAIN, *words, cwd=tmp_path, PATH="/no/where")
    assert done.returncode == 2, done.stderr
    assert "hydra/launcher=slurm: there is no sbatch here" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("limit", "minutes"),
    [("infinite", inf), ("30:00", 30), ("1-12:00:00", 2160), ("2:00:30", 120.5)],
)
def test_time_limits_of_slurm(limit: str, minutes: float) -> None:
    assert room._minutes(limit) == minutes


@pytest.mark.parametrize(
    ("gres", "number"),
    [("(null)", 0), ("gpu:2", 2), ("gpu:a100:4(S:0-1),fpga:1,gpu:v100:2", 6)],
)
def test_gpus_of_slurm(gres: str, number: int) -> None:
    assert room._gpus(gres) == number
