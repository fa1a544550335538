"""The commands as a user runs them: child processes, exit codes, files."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cifar10_stand_in import write_stand_in
from conftest import QUICK, ROOT, Command
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from imex_experiments.data.cifar10 import ARCHIVE, CLASSES
from imex_experiments.data.folder.published import write_image_folder
from imex_experiments.data.qtips import QtipsRecipe, make_qtips

TRAIN = str(ROOT / "train.py")


def the_run(cwd: Path, model: str = "imexnet") -> Path:
    (run,) = (cwd / "outputs").glob(f"*/{model}/*")
    return run


def numbers(run: Path) -> dict[str, float]:
    """metrics.json without the one entry that a clock decides."""
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics.pop("train_seconds") > 0
    return metrics


def test_a_run_leaves_every_promised_file(trained: Path) -> None:
    promised = """.hydra/config.yaml .hydra/overrides.yaml train.log metrics.csv metrics.json
        status.json checkpoints/best.ckpt checkpoints/last.ckpt figures/segmentation.png"""
    for name in promised.split():
        assert (trained / name).stat().st_size > 0, name
    status = json.loads((trained / "status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("finished", 0)
    assert not list(trained.rglob("*.partial"))


def test_nothing_is_said_of_an_srun_that_is_not_used(trained: Path) -> None:
    """Lightning hints at it wherever SLURM is installed, login nodes included."""
    assert "srun" not in (trained.parents[3] / "stderr").read_text()


def test_metrics_hold_what_is_promised(trained: Path) -> None:
    metrics = json.loads((trained / "metrics.json").read_text())
    classes = ("background", "white-white", "white-black", "black-black")
    scores = [
        "miou",
        "object_iou",
        "dice",
        "accuracy",
        "published_iou",
        "loss",
        *(f"iou/{c}" for c in classes),
    ]
    for split in ("val", "test", "last/val"):
        for score in scores:
            assert 0 <= metrics[f"{split}/{score}"] < 10
    assert metrics["parameters"] == 7952
    assert metrics["flops"] > 2 * 9 * 64 * 64 * (4 + 32 + 128 + 2 * (16 + 64 + 256))
    assert metrics["train_seconds"] > 0


def test_metrics_csv_has_one_row_per_epoch(trained: Path) -> None:
    with (trained / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    last = json.loads((trained / "metrics.json").read_text())["last/val/miou"]
    assert float(rows[-1]["val/miou"]) == last


def test_same_seed_gives_the_same_numbers_and_another_seed_others(
    forked: Command, trained: Path, tmp_path: Path
) -> None:
    for seed, same in ((0, True), (1, False)):
        cwd = tmp_path / str(seed)
        cwd.mkdir()
        done = forked(TRAIN, f"seed={seed}", *QUICK, cwd=cwd)
        assert done.returncode == 0, done.stderr
        assert (numbers(the_run(cwd)) == numbers(trained)) is same
        for command in ("evaluate", "predict", "tensorboard --logdir", "resume"):
            assert command in done.stdout


def test_alpha_zero_trains_exactly_like_the_resnet(
    forked: Command, tmp_path: Path
) -> None:
    quick = [*QUICK, "trainer.max_epochs=1", "data.train=16"]
    for model in ("imexnet", "resnet"):
        done = forked(TRAIN, f"model={model}", "model.alpha=0", *quick, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    implicit, explicit = (numbers(the_run(tmp_path, m)) for m in ("imexnet", "resnet"))
    for name in explicit:
        if name.startswith(("val/", "test/", "last/")):
            assert implicit[name] == explicit[name], name
    assert implicit["parameters"] - explicit["parameters"] == 9 * (4 + 8 + 16)


def test_depth_gives_the_same_numbers_with_any_number_of_workers(
    forked: Command, tmp_path: Path
) -> None:
    words = [
        "model=imexnet_depth",
        "data=nyu_sample",
        "data.frames=6",
        "data.counts=[2,2,2]",
    ]
    words += ["data.image_size=[24,32]", "data.batch_size=2", "model.widths=[4,8]"]
    found = []
    for workers in (1, 4):
        cwd = tmp_path / str(workers)
        cwd.mkdir()
        quick = [f"data.num_workers={workers}", "trainer.max_epochs=2"]
        done = forked(TRAIN, *words, *quick, cwd=cwd)
        assert done.returncode == 0, done.stderr
        found.append(numbers(the_run(cwd, "imexnet_depth")))
    assert found[0] == found[1]


SMALL = ["trainer.max_epochs=1", "trainer.log_every_n_steps=1", "data.batch_size=2"]
SMALL += ["data.train=4", "data.val=2", "data.test=2", "data.image_size=24"]
SMALL += ["data.lengths=[8,12]", "data.widths=[2,4]"]
"""Images small enough for a scheme that evaluates f many times."""


@pytest.mark.parametrize(
    "model",
    [
        *("verlet", "theta"),
        *(
            pytest.param(model, marks=pytest.mark.slow)
            for model in ("midpoint", "rk4", "ars222", "sbdf2", "etd1")
        ),
    ],
)
def test_every_scheme_trains(model: str, forked: Command, tmp_path: Path) -> None:
    """One step of time from the command line; solves are told to TensorBoard."""
    done = forked(TRAIN, f"model={model}", "data=qtips", *SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = the_run(tmp_path, model)
    status = json.loads((run / "status.json").read_text())
    assert (status["state"], status["model"]) == ("finished", model)
    assert numbers(run)["parameters"] > 1000
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    solver = {tag for tag in events.Tags()["scalars"] if tag.startswith("solver/")}
    names = {"residual", "iterations", "converged"}
    names |= {f"adjoint_{name}" for name in names}
    assert solver == ({f"solver/{n}" for n in names} if model == "theta" else set())
    if model == "theta":
        assert events.Scalars("solver/residual")[0].value <= 1e-4
        assert events.Scalars("solver/converged")[0].value == 1


@pytest.mark.parametrize(
    ("experiment", "words", "figure", "score"),
    [
        pytest.param(
            *("implicit_function1d", [], "fit", "rmse"), marks=pytest.mark.slow
        ),
        ("implicit_spirals", [], "boundary", "accuracy"),
        ("dynamic_blocks_cifar10", ["data.verify=false"], "classes", "accuracy"),
        pytest.param(
            *("cifar10_rk4_onecycle", ["data.verify=false"], "classes", "accuracy"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_toy_and_cifar_experiments_train(
    experiment: str,
    words: list[str],
    figure: str,
    score: str,
    forked: Command,
    tmp_path: Path,
) -> None:
    if "cifar" in experiment:
        write_stand_in(tmp_path / ARCHIVE, per_file=4)
        words = [*words, f"data.root={tmp_path}", "data.batch_size=6"]
    words = [f"experiment={experiment}", "trainer.max_epochs=2", *words]
    words += ["trainer.check_val_every_n_epoch=1"] if "cifar" not in experiment else []
    done = forked(TRAIN, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = the_run(tmp_path, "*")
    assert numbers(run)[f"test/{score}"] >= 0
    assert (run / "figures" / f"{figure}.png").stat().st_size > 1000
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "images/a.png")
    words = [f"run={run}", f"images={tmp_path / 'images'}", f"out={tmp_path / 'out'}"]
    done = forked(str(ROOT / "scripts/predict.py"), *words)
    if figure == "classes":
        header, line = (tmp_path / "out/classes.csv").read_text().splitlines()
        assert header == "image,class"
        assert line.partition(",")[0] == "a.png"
        assert line.partition(",")[2] in CLASSES
    else:
        assert done.returncode == 2
        assert "it was trained on points, not on images" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["qtips_table1", "qtips_released"])
def test_published_recipes_train(
    experiment: str, forked: Command, tmp_path: Path
) -> None:
    tiny = ["trainer.max_epochs=1", "data.train=8", "data.val=4", "data.test=4"]
    done = forked(TRAIN, f"experiment={experiment}", *tiny, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    model = "imexnet" if experiment == "qtips_table1" else "diffusion_reaction"
    metrics = numbers(the_run(tmp_path, model))
    assert metrics["parameters/convolution"] == 2_691_648
    assert metrics["parameters/diffusion"] == 12_096


# What goes wrong: words, exit code, what the one line says.
MISTAKES: dict[str, tuple[list[str], int, str]] = {
    "unknown model": (["model=imexnt"], 2, "model=imexnt: no such choice"),
    "unknown data": (["data=qtip"], 2, "data=qtip: no such choice; known: "),
    "unknown experiment": (["experiment=x"], 2, "experiment=x: no such choice"),
    "unknown group": (
        ["modle=resnet"],
        2,
        "modle: unknown key, did you mean 'model'?",
    ),
    "key typo": (
        ["model.alhpa=3"],
        2,
        "model.alhpa: unknown key, did you mean 'alpha'?",
    ),
    "group typo": (["modle.h=1"], 2, "modle: unknown key, did you mean 'model'?"),
    "nested typo": (["model.layer.nrom=none"], 2, "did you mean 'norm'?"),
    "wrong type": (["model.h=abc"], 2, "model.h=abc: expected float or Literal"),
    "fraction": (
        ["model.steps=1.5"],
        2,
        "model.steps=1.5: expected int | Sequence[int], got float",
    ),
    "h zero": (["model.h=0"], 2, "model: h must be > 0 and finite, got 0"),
    "h nan": (["model.h=nan"], 2, "model: h must be > 0 and finite, got nan"),
    "h inf": (["model.h=inf"], 2, "model: h must be > 0 and finite, got inf"),
    "alpha nan": (["model.alpha=nan"], 2, "alpha must be >= 0 and finite, got nan"),
    "alpha negative": (
        ["model.alpha=-1"],
        2,
        "model: alpha must be >= 0 and finite, got -1",
    ),
    "alpha of resnet": (["model=resnet", "model.alpha=-1"], 2, "alpha must be >= 0"),
    "even kernel": (["model.layer.kernel_size=4"], 2, "kernel_size must be odd"),
    "large kernel": (
        ["model.layer.kernel_size=65"],
        2,
        "(64, 64) is smaller than the kernel",
    ),
    "large batch": (["data.batch_size=2000"], 2, "batch_size 2000 is larger than"),
    "small image": (["data.image_size=20"], 2, "image_size must hold the longest bar"),
    "foreign class": (
        ["model._target_=os.system"],
        2,
        "only classes of imex_experiments",
    ),
    "bad syntax": (["model.widths=[4,8"], 2, "model.widths=[4,8"),
    "optimizer": (["optimizer.lr=-1"], 2, "optimizer"),
    "no such folder": (["data.root=/no/where"], 3, "/no/where: no such folder"),
    "no path": (
        ["data=nyu_depth", "model=imexnet_depth"],
        2,
        "data.path: Missing mandatory value",
    ),
    "unknown loss": (
        ["data=nyu_sample", "model=imexnet_depth", "task.loss=l3"],
        2,
        "task.loss=l3: expected Literal['l2', 'l1', 'huber', 'silog']",
    ),
    "no such file": (
        ["data=nyu_depth", "model=imexnet_depth", "data.path=/no/where.mat"],
        3,
        "/no/where.mat: no such file; get nyu_depth_v2_labeled.mat",
    ),
    "times decrease": (
        ["model=rk4", "model.times=[0,1,0.5]"],
        2,
        "model: time points must be finite and increasing, got (0, 1, 0.5)",
    ),
    "knots too short": (
        ["model=rk4", "model.steps=2", "model.knots=[0,1]"],
        2,
        "model: knots must cover the time points, from 0.0 to 2.0, got [0, 1]",
    ),
    "theta outside": (
        ["model=theta", "model.integrator.theta=1.5"],
        2,
        "theta must lie in [0, 1], got 1.5",
    ),
    "no tolerance": (
        ["model=theta", "model.integrator.tol=0"],
        2,
        "tol must be > 0 and finite, got 0",
    ),
    "odd channels": (
        ["model=verlet", "model.widths=[4,7]"],
        2,
        "model: Verlet splits the channels into two halves: widths must be even, got 7",
    ),
    "batch norm on interpolated weights": (
        ["model=rk4", "model.interpolation=linear", "model.layer.norm=batch"],
        2,
        "model: norm=batch: between two knots the weights are interpolated",
    ),
    "no archive": (
        ["experiment=dynamic_blocks_cifar10", "data.root=/no/where"],
        3,
        "/no/where/cifar-10-binary.tar.gz: no such file; get it from",
    ),
    "does not converge": (
        [
            *("model=theta", "model.integrator.max_iterations=1", *SMALL),
            *("model.integrator.tol=1e-6", "callbacks.solver_log.stop=true"),
        ],
        5,
        "solves did not converge at step 0, residual",
    ),
    "nothing to resume": (
        ["resume=/no/where"],
        4,
        "resume=/no/where: not a run folder",
    ),
    "diverges": (
        ["optimizer.lr=1e30", "scheduler.max_lr=1e30", *QUICK],
        5,
        "the loss is nan at step",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_line_and_an_exit_code(
    mistake: str, forked: Command, tmp_path: Path
) -> None:
    words, code, complaint = MISTAKES[mistake]
    done = forked(TRAIN, *words, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    lines = done.stderr.strip().splitlines()
    assert lines[-1].startswith("error: ")
    assert complaint in lines[-1]
    assert "Traceback" not in done.stderr
    if code in (2, 3, 4):
        assert len(lines) == 1
        assert list(tmp_path.iterdir()) == []  # no folder is made for what cannot run
    else:
        run = the_run(tmp_path, model="*")
        status = json.loads((run / "status.json").read_text())
        assert status["state"] == "failed"
        assert status["exit_code"] == code
        assert complaint in status["reason"]
        assert not (run / "metrics.json").exists()
        assert "Traceback" in (run / "train.log").read_text()


def test_traceback_is_there_when_asked_for(forked: Command, tmp_path: Path) -> None:
    done = forked(TRAIN, "model.h=0", cwd=tmp_path, HYDRA_FULL_ERROR="1")
    assert "Traceback" in done.stderr
    assert done.returncode != 0


def test_defect_in_a_folder_of_images_ends_with_3(
    forked: Command, tmp_path: Path
) -> None:
    root = tmp_path / "qtips"
    for split in ("train", "val"):
        write_image_folder(root / split, **make_qtips(20, QtipsRecipe(), 0))
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(
        root / "train/images/000007.png"
    )
    done = forked(TRAIN, f"data.root={root}", *QUICK, cwd=tmp_path)
    assert done.returncode == 3
    assert "000007.png: expected a grey image, got a colour one" in done.stderr
    (root / "train/images/000007.png").unlink()
    done = forked(TRAIN, f"data.root={root}", *QUICK, cwd=tmp_path)
    assert done.returncode == 3
    assert "19 images but 20 labels" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["qtips"]


def test_images_of_a_folder_that_do_not_suit_the_network(
    forked: Command, tmp_path: Path
) -> None:
    """The configuration says 64 x 64, the files are smaller."""
    recipe = QtipsRecipe(image_size=40, lengths=(16, 24))
    for split in ("train", "val"):
        write_image_folder(tmp_path / "qtips" / split, **make_qtips(20, recipe, 0))
    kernel = "model.layer.kernel_size=51"
    words = [kernel, f"data.root={tmp_path / 'qtips'}", *QUICK]
    done = forked(TRAIN, *words, cwd=tmp_path)
    assert done.returncode == 2
    assert "(40, 40) is smaller than the kernel" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["qtips"]
    done = forked(TRAIN, *words[1:], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("no test metrics") == 1
    assert "no test metrics" in (the_run(tmp_path) / "train.log").read_text()
    metrics = numbers(the_run(tmp_path))
    assert "val/miou" in metrics
    assert "test/miou" not in metrics


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("sign", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_signals_end_in_order_and_the_run_goes_on_in_its_folder(
    sign: signal.Signals,
    code: int,
    forked: Command,
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    words = [TRAIN, *QUICK, "trainer.max_epochs=4", "data.train=96"]
    words += ["model.widths=[4,8]"]
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=tmp_path,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    wait_for(lambda: bool(list(tmp_path.rglob("last.ckpt"))), process)
    os.kill(process.pid, sign)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    run = the_run(tmp_path)
    status = json.loads((run / "status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("interrupted", code)

    done = forked(TRAIN, f"resume={run.relative_to(tmp_path)}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert the_run(tmp_path) == run
    with (run / "metrics.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3", "4"]
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert [point.step for point in events.Scalars("val/miou")] == [5, 11, 17, 23]

    changed = forked(TRAIN, f"resume={run}", "model.h=0.5", cwd=tmp_path)
    assert changed.returncode == 2
    assert "model.h: 1.0 -> 0.5" in changed.stderr

    before = (run / "metrics.json").read_bytes()
    again = forked(TRAIN, f"resume={run}", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "finished" in again.stdout
    assert (run / "metrics.json").read_bytes() == before
