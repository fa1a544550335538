"""A run that was stopped or killed ends bit for bit like one that nobody disturbed."""

import csv
import json
import os
import random
import shutil
import signal
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cifar10_stand_in import write_stand_in
from conftest import Command
from folder_sets import write_set
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torture import (
    SMALL,
    TRAIN,
    Whole,
    corrupt,
    fingerprint,
    fuzz,
    make_together,
    train,
)

from imex_experiments.callbacks import Checkpoints, FiniteCheck
from imex_experiments.data.cifar10 import ARCHIVE
from imex_experiments.process.interrupts import INTERRUPTS
from imex_experiments.runs.checkpoint_io import read_checkpoint
from imex_experiments.runs.layout import BEST, CONFIG, LAST, PREVIOUS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kills forks")


@pytest.fixture(autouse=True)
def _cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMEX_CACHE", str(cache))


def signal_at(step: int, number: int) -> None:
    """Send this process a signal within the update of an optimizer step."""
    check = FiniteCheck.on_before_optimizer_step

    def interrupted(self: Any, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        check(self, trainer, pl_module, optimizer)
        if trainer.global_step == step - 1:
            os.kill(os.getpid(), number)

    FiniteCheck.on_before_optimizer_step = interrupted  # type: ignore[method-assign]


ACCUMULATE = "trainer.accumulate_grad_batches=2"
CASES = {
    "0 workers": (4, ["data.train=8"]),
    "2 workers, accumulation": (4, ["data.train=12", "data.num_workers=2", ACCUMULATE]),
    "0 workers, accumulation": (6, ["data.train=22", ACCUMULATE]),
    "2 workers": (8, ["data.train=14", "data.num_workers=2"]),
    "an epoch without validation": (
        8,
        ["data.train=14", "trainer.check_val_every_n_epoch=2"],
    ),
}
"""Name -> optimizer steps in two epochs, and what is special."""

QUICK = ("0 workers", "2 workers, accumulation")


WORKERS = [
    (0, 2),
    pytest.param(2, 0, marks=pytest.mark.slow),
    pytest.param(2, 2, marks=pytest.mark.slow),
    pytest.param(0, 0, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("before", "after"), WORKERS)
def test_augmented_images_of_a_folder_are_the_same_after_a_kill(
    before: int, after: int, tmp_path: Path
) -> None:
    """Two epochs of four batches, killed in the second one; workers do not matter."""
    words = [
        *("data=folder", f"data.root={write_set(tmp_path / 'set')}", "data.crop=8"),
        *("data.classes=[dark,bright]", "data.batch_size=2", "data.views=2"),
        *(f"data.augment.{k}" for k in ("flip=both", "rotate=30", "scale=1.5")),
        *(f"data.augment.{k}=0.3" for k in ("jitter", "blur", "noise", "shift")),
        *("data.augment.cutout=0.3", "model.widths=[2]", "trainer.max_epochs=2"),
        *("callbacks.checkpoints.every_steps=1", "callbacks.progress=null"),
        *("callbacks.figures=null", "callbacks.stability=null"),
    ]
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert train([*words, f"hydra.run.dir={whole}"]) == 0
    expected = fingerprint(whole)
    kill = partial(signal_at, 6, signal.SIGKILL)
    words.append(f"data.num_workers={before}")
    assert train([*words, f"hydra.run.dir={run}"], kill) == -signal.SIGKILL
    assert train([f"resume={run}", f"data.num_workers={after}"]) == 0
    found = fingerprint(run)
    assert [key for key in expected if found[key] != expected[key]] == []


@pytest.mark.parametrize(
    "case",
    [c if c in QUICK else pytest.param(c, marks=pytest.mark.slow) for c in CASES],
)
def test_resume_at_every_step_is_exact(case: str, tmp_path: Path) -> None:
    """A stop at each step: within an epoch, at its end, within the next, at the last one."""
    steps, special = CASES[case]
    words = [*SMALL, *special, "callbacks.checkpoints.every_steps=null"]
    whole = tmp_path / "whole"
    assert train([*words, f"hydra.run.dir={whole}"]) == 0
    expected = fingerprint(whole)
    assert expected["history"][-1]["step"] == str(steps)
    for step in range(1, steps + 1):
        run = tmp_path / str(step)
        sign = signal.SIGTERM if step % 2 else signal.SIGINT
        code = train([*words, f"hydra.run.dir={run}"], partial(signal_at, step, sign))
        assert code == (143 if step % 2 else 130)
        assert corrupt(run) == []
        assert train([f"resume={run}"]) == 0
        found = fingerprint(run)
        differing = [key for key in expected if found[key] != expected[key]]
        assert (step, differing) == (step, [])


def test_flips_and_crops_are_the_same_after_a_kill(tmp_path: Path) -> None:
    """Two batches in each of two epochs: killed in the last one, resumed with a worker.

    The learning rate steps down between the epochs, and norms do not decay.
    """
    write_stand_in(tmp_path / ARCHIVE, per_file=2)
    words = [
        *("experiment=dynamic_blocks_cifar10", f"data.root={tmp_path}"),
        *("data.verify=false", "data.batch_size=4", "trainer.max_epochs=2"),
        *("model.widths=[2]", "model.closing=2", "model.steps=1"),
        *("scheduler.milestones=[1]", "callbacks.checkpoints.every_steps=1"),
        *("callbacks.progress=null", "callbacks.figures=null"),
    ]
    whole = tmp_path / "whole"
    assert train([*words, f"hydra.run.dir={whole}"]) == 0
    expected = fingerprint(whole)
    for step in (2, 4):
        run = tmp_path / str(step)
        kill = partial(signal_at, step, signal.SIGKILL)
        assert train([*words, f"hydra.run.dir={run}"], kill) == -signal.SIGKILL
        assert train([f"resume={run}", f"data.num_workers={step // 4}"]) == 0
        found = fingerprint(run)
        assert [key for key in expected if found[key] != expected[key]] == []


def test_goes_on_in_the_same_curves_and_rows(tmp_path: Path) -> None:
    """Killed in step 7, long after the checkpoint of step 4: what came then is taken back."""
    run = tmp_path / "run"
    words = [*SMALL, "callbacks.checkpoints.every_steps=null", f"hydra.run.dir={run}"]
    assert train(words, partial(signal_at, 7, signal.SIGKILL)) == -signal.SIGKILL
    assert train([f"resume={run}"]) == 0
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    for tag, steps in (
        ("train/loss", range(8)),
        ("val/miou", [3, 7]),
    ):
        assert [point.step for point in events.Scalars(tag)] == list(steps)
    assert [image.step for image in events.Images("val/segmentation")] == [3, 7]
    rows = (run / "metrics.csv").read_text().splitlines()[1:]
    assert [row.split(",")[1] for row in rows] == ["4", "8"]


def test_curves_are_in_order_after_a_clock_was_set_back(tmp_path: Path) -> None:
    """By a day. TensorBoard reads files in the order of their names."""
    run = tmp_path / "run"
    words = [*SMALL, "callbacks.checkpoints.every_steps=null", f"hydra.run.dir={run}"]
    assert train(words, partial(signal_at, 7, signal.SIGKILL)) == -signal.SIGKILL
    (before,) = (run / "tensorboard").iterdir()
    _, _, _, stamp, *rest = before.name.split(".")
    later = ["events.out.tfevents", str(int(stamp) + 86400), *rest]
    before.rename(before.with_name(".".join(later)))
    assert train([f"resume={run}"]) == 0
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    assert [point.step for point in events.Scalars("train/loss")] == list(range(8))
    assert [point.step for point in events.Scalars("best/val/miou")] == [8]


def kill_at_name(name: str, number: int) -> None:
    """Kill this process before a file gets a name for the nth time; all scores improve."""
    replace, seen = os.replace, Counter[str]()

    def counted(source: Any, target: Any) -> None:
        seen[Path(target).name] += 1
        if Path(target).name == name and seen[name] == number:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    os.replace = counted  # type: ignore[assignment]
    save = Checkpoints.on_validation_end

    def improved(self: Checkpoints, trainer: Any, pl_module: Any) -> None:
        self.best_score = -1.0
        save(self, trainer, pl_module)

    Checkpoints.on_validation_end = improved  # type: ignore[method-assign]


def test_killed_in_its_very_last_checkpoint(tmp_path: Path) -> None:
    """Nothing is left to train then, and last.ckpt is made from what there is."""
    words = [*SMALL, "data.train=8", "callbacks.checkpoints.every_steps=null"]
    whole = tmp_path / "whole"
    improving = partial(kill_at_name, "never", 0)
    assert train([*words, f"hydra.run.dir={whole}"], improving) == 0
    expected = fingerprint(whole)
    for name in ("last.ckpt", "best.ckpt"):
        run = tmp_path / name
        kill = partial(kill_at_name, name, 2)
        assert train([*words, f"hydra.run.dir={run}"], kill) == -signal.SIGKILL
        assert (run / "checkpoints/last.ckpt").exists() == (name == "best.ckpt")
        assert train([f"resume={run}"], improving) == 0
        found = fingerprint(run)
        assert [key for key in expected if found[key] != expected[key]] == []


def test_damaged_best_beside_a_sound_last(tmp_path: Path) -> None:
    """Without a copy of it the best from there on is kept, here the last of two."""
    run = tmp_path / "run"
    stop = partial(signal_at, 5, signal.SIGTERM)
    assert train([*SMALL, f"hydra.run.dir={run}"], stop) == 143
    (run / BEST).write_bytes(b"damaged")
    (run / PREVIOUS).unlink()
    assert train([f"resume={run}"]) == 0
    kept, end = (read_checkpoint(run / name)["state_dict"] for name in (BEST, LAST))
    assert all(kept[name].equal(end[name]) for name in end)


def test_killed_in_the_only_checkpoint_of_a_run_without_validation(
    tmp_path: Path,
) -> None:
    """Its end is what is kept; when that is missing, no step is left to come to it."""
    run = tmp_path / "run"
    words = [*SMALL, "trainer.check_val_every_n_epoch=5", f"hydra.run.dir={run}"]
    assert train(words, partial(kill_at_name, "best.ckpt", 1)) == -signal.SIGKILL
    assert train([f"resume={run}"]) == 0
    kept, end = (read_checkpoint(run / name)["state_dict"] for name in (BEST, LAST))
    assert all(kept[name].equal(end[name]) for name in end)


def test_killed_while_a_change_is_written(tmp_path: Path) -> None:
    """Each file of .hydra is the old one or the new one, so that the run can go on."""
    run = tmp_path / "run"
    assert train([*SMALL, f"hydra.run.dir={run}"], partial(signal_at, 5, 15)) == 143
    change = [f"resume={run}", "optimizer.lr=0.5", "resume_changed=true"]
    kill = partial(kill_at_name, "overrides.yaml", 1)
    assert train(change, kill) == -signal.SIGKILL
    assert all((run / ".hydra" / name).stat().st_size for name in NAMES)
    assert train(change) == 0


NAMES = ("config.yaml", "hydra.yaml", "overrides.yaml")


def test_change_is_named_and_honoured_only_when_asked_for(
    forked: Command, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert train([*SMALL, f"hydra.run.dir={run}"], partial(signal_at, 5, 15)) == 143
    words = [f"resume={run}", "optimizer.lr=0.5", "scheduler=constant"]
    done = forked(TRAIN, *words)
    assert done.returncode == 2
    assert "optimizer.lr: 0.01 -> 0.5" in done.stderr
    assert "resume_changed=true" in done.stderr
    done = forked(TRAIN, f"resume={run}", "model.widths=[6]", "resume_changed=true")
    assert done.returncode == 4
    assert "the checkpoint is of another network" in done.stderr
    done = forked(TRAIN, *words, "resume_changed=true")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    assert [float(row["lr"]) for row in rows[1:]] == [0.5]
    assert float(rows[0]["lr"]) < 0.01
    again = [f"resume={run}", "trainer.max_epochs=3", "resume_changed=true"]
    assert forked(TRAIN, *again).returncode == 0  # the changes are the run's now
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    assert [float(row["lr"]) for row in rows[1:]] == [0.5, 0.5]


def test_a_resume_that_is_refused_changes_nothing(
    forked: Command, tmp_path: Path
) -> None:
    """Of a finished run: no file, no time of change; and so with its last.ckpt damaged."""
    run, root = tmp_path / "run", tmp_path / "no images"
    assert train([*SMALL, f"hydra.run.dir={run}"]) == 0
    refused = {
        "trainer.max_epochs=1": (
            2,
            "trainer.max_epochs=1: the run has trained 2 epochs",
        ),
        "trainer.max_steps=3": (2, "trainer.max_steps=3: the run has trained "),
        "model.widths=[6]": (4, "the checkpoint is of another network"),
        f"data.root='{root}'": (3, f"{root}: no such folder"),
    }
    for damage in (False, True):
        if damage:
            (run / "checkpoints/last.ckpt").write_bytes(b"cut off")
        before = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in run.rglob("*")}
        for word, (code, complaint) in refused.items():
            done = forked(TRAIN, f"resume={run}", "resume_changed=true", word)
            assert done.returncode == code, done.stderr
            (line,) = done.stderr.splitlines()
            assert complaint in line
            after = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in run.rglob("*")}
            assert after == before


@pytest.mark.slow
def test_schedule_goes_on_with_the_new_rate_where_it_is(tmp_path: Path) -> None:
    """At step k of the cycle, scaled: what a run of the new rate would have there."""
    run, other = tmp_path / "run", tmp_path / "other"
    assert train([*SMALL, f"hydra.run.dir={run}"], partial(signal_at, 5, 15)) == 143
    new = ["optimizer.lr=0.5", "scheduler.max_lr=0.5"]
    assert train([f"resume={run}", *new, "resume_changed=true"]) == 0
    assert train([*SMALL, *new, f"hydra.run.dir={other}"]) == 0
    lr = [
        [row["lr"] for row in csv.DictReader((folder / "metrics.csv").open())][1:]
        for folder in (run, other)
    ]
    assert lr[0] == lr[1]


def test_another_number_of_workers_or_threads_goes_on(
    forked: Command, tmp_path: Path
) -> None:
    """Of threads and kernels it is said that they may change the numbers; workers do not."""
    run = tmp_path / "run"
    assert train([*SMALL, f"hydra.run.dir={run}"], partial(signal_at, 5, 15)) == 143
    status = json.loads((run / "status.json").read_text())
    status["threads"] += 1
    status["kernels"] = not status["kernels"]
    (run / "status.json").write_text(json.dumps(status))
    done = forked(TRAIN, f"resume={run}", "data.num_workers=1")
    assert done.returncode == 0, done.stderr
    assert "not bit for bit" in done.stdout
    assert f"threads {status['threads']} -> {status['threads'] - 1}" in done.stdout
    assert f"kernels {status['kernels']} -> {not status['kernels']}" in done.stdout


def test_second_signal_ends_at_once(tmp_path: Path) -> None:
    """Two in one step, so no checkpoint is made, and none is there to go on from."""

    def twice() -> None:
        signal_at(2, signal.SIGINT)
        signal_at(2, signal.SIGINT)

    run = tmp_path / "run"
    words = [*SMALL, "callbacks.checkpoints.every_steps=null", f"hydra.run.dir={run}"]
    assert train(words, twice) == 130
    assert not list(run.rglob("*.ckpt"))
    assert train([f"resume={run}"]) == 4


def test_second_signal_to_a_job_of_a_sweep_is_the_first_again(tmp_path: Path) -> None:
    """SLURM signals the job and the process above it, whose end is a signal to the job."""

    def twice() -> None:
        INTERRUPTS.once = True  # as `end_with_parent` does
        signal_at(2, signal.SIGTERM)
        signal_at(2, signal.SIGTERM)

    run = tmp_path / "run"
    words = [*SMALL, "callbacks.checkpoints.every_steps=null", f"hydra.run.dir={run}"]
    assert train(words, twice) == 143
    assert (run / "checkpoints/last.ckpt").is_file()


@pytest.mark.slow
def test_kills_lose_nothing(tmp_path: Path) -> None:
    """kill -9, twice inside of a checkpoint write; `make test-faults` does a hundred."""
    whole = Whole(tmp_path / "whole")
    rng = random.Random(1)
    counts: Counter[str] = Counter()
    for number in range(4):
        counts += whole.kill(tmp_path / str(number), rng, inside=number < 2)
    assert counts["ended bit-identical"] == 4, counts
    assert counts["killed in a write"] >= 2
    assert not any("LOST" in name for name in counts), counts
    counts = fuzz(whole.run, rng, 100)
    assert sum(counts.values()) == 100
    assert not any("LOST" in name for name in counts), counts


def test_one_cache_of_many_makers_that_are_killed(tmp_path: Path) -> None:
    counts = make_together(tmp_path / "cache", random.Random(2))
    assert counts["readers of a cache with equal bytes"] >= 5
    assert not any("LOST" in name for name in counts), counts


def test_a_run_older_than_a_key_goes_on(
    trained: Path, forked: Command, tmp_path: Path
) -> None:
    """Keys that came into conf/ after a run was started are no change of it."""
    run = shutil.copytree(trained, tmp_path / "run")
    config = OmegaConf.load(run / CONFIG)
    for key in ("graphs", "min_epochs", "sync_batchnorm"):
        del config.trainer[key]
    OmegaConf.save(config, run / CONFIG)
    done = forked(str(TRAIN), f"resume={run}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "this run is finished" in done.stdout
    done = forked(str(TRAIN), f"resume={run}", "trainer.min_epochs=2", cwd=tmp_path)
    assert done.returncode == 2
    assert "trainer.min_epochs: None -> 2" in done.stderr
