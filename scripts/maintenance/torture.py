"""Try to lose a run: kill -9, fuzzed checkpoints, a cache made by many at once.

    python scripts/maintenance/torture.py     # one pass: 100 kills, 2,000 files, 20 rounds
    python scripts/maintenance/torture.py --minutes 60        # passes until the time is over
    python scripts/maintenance/torture.py --kills 10 --inside 3 --fuzzed 200 --rounds 2
    python scripts/maintenance/torture.py --at every-operation    # 12 minutes; Linux, with cc
    python scripts/maintenance/torture.py --at every-operation --sample 20
    python scripts/maintenance/torture.py --at every-operation --sweep    # 40 minutes

The last three disturb a run, or a sweep of three jobs, at each of its file operations: it is
killed before the call or after half a write, the disk is full or fails, SIGTERM arrives.
Then it is resumed.

It prints counts and ends with 1 if anything was lost. The runs are forks of this process,
with all imports done: what is killed is a real process of train.py, within its work.
"""

import argparse
import csv
import hashlib
import json
import multiprocessing
import os
import random
import re
import runpy
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import shim
import torch

import imex_experiments.callbacks
import imex_experiments.data
import imex_experiments.networks  # noqa: F401
from imex_experiments.callbacks import FiniteCheck
from imex_experiments.data.cache import LEFTOVERS, cached
from imex_experiments.data.qtips import QtipsRecipe, make_qtips
from imex_experiments.errors import CheckpointError, ConfigError, StorageError
from imex_experiments.runs.checkpoint_io import (
    checksum_of,
    has_checkpoint,
    read_checkpoint,
)
from imex_experiments.runs.layout import BEST, HISTORY, LAST, METRICS

TRAIN = str(Path(__file__).parents[2] / "train.py")

SMALL = [
    "trainer.max_epochs=2",
    "data.train=16",
    "data.val=4",
    "data.test=4",
    "data.batch_size=4",
    "data.image_size=24",
    "data.lengths=[8,12]",
    "data.widths=[2,4]",
    "model.widths=[4]",
    "trainer.log_every_n_steps=1",
    "callbacks.progress=null",
    "callbacks.checkpoints.every_steps=1",
]
"""A run of eight steps, each of which is saved."""

MAKERS = 8
"""Processes that make one cache."""

AT_ONCE = 2
"""Runs that are disturbed side by side, each in a folder of its own."""

OTHER_FILE_SYSTEM = Path("/dev/shm")

Before = Callable[[], None]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--inside", type=int, default=30, help="of them in a write")
    parser.add_argument("--fuzzed", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=20, help=f"{MAKERS} makers each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at", choices=["random-moments", "every-operation"])
    parser.add_argument("--how", nargs="+", choices=list(ENDS), default=list(ENDS))
    parser.add_argument("--sweep", action="store_true", help="of a sweep of three jobs")
    parser.add_argument("--sample", type=int, help="so many of all operations")
    args = parser.parse_args()
    if args.at == "every-operation" and not shim.is_loaded():
        shim.start_again()
    rng = random.Random(args.seed)
    end = time.monotonic() + 60 * args.minutes
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="torture-") as name:
        folder = Path(name)
        os.environ.setdefault("IMEX_CACHE", str(folder / "cache"))
        if OTHER_FILE_SYSTEM.is_dir():
            os.environ["TMPDIR"] = str(OTHER_FILE_SYSTEM)
        if args.at == "every-operation":
            try:
                disturb_operations(
                    folder, rng, args.how, args.sample, counts, args.sweep
                )
            finally:  # Ctrl-C after half an hour too
                tell(counts)
            return int(any(name.startswith("LOST") for name in counts))
        whole = Whole(folder / "whole")
        while True:
            for number in range(args.kills):
                counts += whole.kill(folder / "cut", rng, number < args.inside)
                shutil.rmtree(folder / "cut", ignore_errors=True)
            counts += fuzz(whole.run, rng, args.fuzzed)
            for _ in range(args.rounds):
                counts += make_together(folder / "together", rng)
                shutil.rmtree(folder / "together")
            tell(counts)
            if time.monotonic() > end:
                return int(any(name.startswith("LOST") for name in counts))


def tell(counts: Counter[str]) -> None:
    for name, number in sorted(counts.items()):
        print(f"{number:8}  {name}", flush=True)


class Whole:
    """The undisturbed run, and those that are killed and must end like it."""

    def __init__(self, run: Path) -> None:
        self.run = run
        begun = time.monotonic()
        assert train([*SMALL, f"hydra.run.dir={run}"]) == 0
        self.seconds = time.monotonic() - begun
        self.state = fingerprint(run)
        with tempfile.TemporaryDirectory(dir=run.parent) as other:
            tally = Path(other) / "tally"
            words = [*SMALL, f"hydra.run.dir={other}/run"]
            assert train(words, partial(die_in_write, tally, -1)) == 0
            self.moments = tally.stat().st_size

    def kill(self, run: Path, rng: random.Random, inside: bool) -> Counter[str]:
        """Kill a run once or twice, then let it end: what happened, and what was lost."""
        counts: Counter[str] = Counter()
        code = None
        for kills in range(3):
            words = [f"resume={run}"]
            if code is None or code == CheckpointError.exit_code:  # nothing saved yet
                shutil.rmtree(run, ignore_errors=True)
                words = [*SMALL, f"hydra.run.dir={run}"]
            if kills and (kills == 2 or rng.random() < 0.5):
                code = train(words)
            elif inside:
                moment = rng.randrange(self.moments)
                tally = run.with_name("tally")
                code = train(words, partial(die_in_write, tally, moment))
                tally.unlink(missing_ok=True)
            else:
                code = train(words, kill_after=rng.uniform(0, self.seconds))
            where = "in a write" if inside else "anywhere"
            counts[f"killed {where}"] += code == -signal.SIGKILL
            counts["LOST: corrupt under a final name"] += len(corrupt(run))
            if code == CheckpointError.exit_code and not has_checkpoint(run):
                shutil.rmtree(run, ignore_errors=True)  # killed before it made one
                code = train([*SMALL, f"hydra.run.dir={run}"])
            if code == 0:
                break
        counts[f"runs killed {where} and resumed"] += 1
        counts["LOST: leftovers"] += len(list(run.rglob("*.partial")))
        same = code == 0 and fingerprint(run) == self.state
        counts["ended bit-identical" if same else "LOST: ended otherwise"] += 1
        return +counts


SHORT = [
    *SMALL,
    "trainer.max_epochs=3",
    "data.train=8",
    "data.val=2",
    "data.test=2",
    "trainer.log_every_n_steps=100",
    "callbacks.figures=null",
    "callbacks.checkpoints.every_steps=null",
]
"""A run of six steps in three epochs, with few file operations."""

SWEEP = ["-m", "seed=0,1,2", *SHORT, "trainer.max_epochs=1", "logger=null"]
"""Three jobs of two steps."""

ENDS = {
    "kill": {-signal.SIGKILL},
    "half": {-signal.SIGKILL},
    "ENOSPC": {StorageError.exit_code},
    "EIO": {StorageError.exit_code},
    "SIGTERM": {128 + signal.SIGTERM},
}
"""Exit codes of a run that is disturbed, where it is not 0 because it could go on."""

REFUSED = {CheckpointError.exit_code, ConfigError.exit_code}
"""Exit codes of a resume of what is no run or sweep yet."""


def disturb_operations(
    folder: Path,
    rng: random.Random,
    how: list[str],
    sample: int | None,
    counts: Counter[str],
    sweep: bool,
) -> None:
    """Disturb a run or a sweep at each of its file operations, or at a sample.

    What came of it is added to the counts.
    """
    whole, names = folder / "whole", folder / "names"
    said = folder / "said"
    code = begin(whole, sweep, said, "count", 0, names)
    assert code == 0, said.read_text()
    state = end_of(whole)
    operations = [line.split(" ", 2) for line in names.read_text().splitlines()]
    cases = [(word, n) for word in how for n in moments(operations, word)]
    if sample is not None:
        cases = rng.sample(cases, sample)
    counts[f"file operations in a {'sweep' if sweep else 'run'}"] = len(operations)
    with ProcessPoolExecutor(AT_ONCE, multiprocessing.get_context("fork")) as pool:
        found = pool.map(partial(disturb, folder, sweep, state), cases)
        for (word, number), came in zip(cases, found, strict=True):
            if any(name.startswith("LOST") for name in came):
                _, call, path = operations[number - 1]
                print(f"{word} at {number}, {call} {path}: {dict(came)}", flush=True)
            counts += came


def begin(
    place: Path,
    sweep: bool,
    said: Path,
    how: str,
    number: int,
    names: Path | None = None,
) -> int:
    """Begin a run or a sweep in a folder with the shim armed; return its exit code."""
    words, kind = (SWEEP, "sweep") if sweep else (SHORT, "run")
    if sweep:
        place.mkdir()  # a new one is told its cost by three steps, in vain here

    def armed() -> None:
        os.register_at_fork(after_in_child=shim.join)
        shim.arm(place, how, number, names)

    return train([*words, f"hydra.{kind}.dir={place}"], armed, said=said)


def runs_in(place: Path) -> list[Path]:
    """Return the folders of the jobs of a sweep, or the run itself."""
    return sorted(place.glob("[0-9]_*")) or [place]


def end_of(place: Path) -> dict[str, Any]:
    """Return all that a finished run has come to, or a sweep with its results.csv."""
    ends: dict[str, Any] = {run.name: fingerprint(run) for run in runs_in(place)}
    if len(ends) == 1:
        return ends.popitem()[1]
    summary = (place / "summary.md").read_text()
    whole = f"{len(ends)} jobs, {len(ends)} finished" in summary
    return ends | {"rows": (place / "results.csv").read_text(), "summary": whole}


ALIKE = {"curves": 8, "job": 20}
"""One in so many is taken of TensorBoard's operations, each of which adds an event, and of
those of the jobs of a sweep, which are those of a run."""


def moments(operations: list[list[str]], how: str) -> list[int]:
    """Return the operations, counted from 1, at which a disturbance is one of its own.

    A kill after any other call than a write is one before the next call, and a disk that
    is full is so at the next call that needs room.
    """
    calls = {"half": ("write",), "ENOSPC": ("write", "open", "mkdir", "link")}
    seen: Counter[str] = Counter()
    chosen = []
    for number, (process, call, path) in enumerate(operations, start=1):
        kind = "curves" if "/tensorboard/" in path else "job"
        if kind == "curves" or process != operations[0][0]:
            seen[kind] += 1
            if seen[kind] % ALIKE[kind]:
                continue
        if call.startswith(calls.get(how, ())) or how not in calls:
            chosen.append(number)
    return chosen


def disturb(
    folder: Path, sweep: bool, state: dict[str, Any], case: tuple[str, int]
) -> Counter[str]:
    """Disturb a run or sweep at one operation and resume it; return what came of it."""
    how, number = case
    place = folder / f"{how}-{number}"
    counts = Counter([f"{how}: operations"])
    said = place.with_suffix(".said")
    code = begin(place, sweep, said, how, number)
    lost_a_job = code == 1 and "run only those with" in last_line(said)
    if code not in ENDS[how] | {0} and not lost_a_job:
        counts[f"LOST: {how} ended with {code}: {last_line(said)}"] += 1
    bad = [path for run in runs_in(place) for path in corrupt(run)]
    counts["LOST: corrupt under a final name"] += len(bad)
    if code == 0:
        counts[f"{how}: of which it went on undisturbed"] += 1
    else:
        code = train([f"{'sweep.' * sweep}resume={place}"], said=said)
    if code == 0 and end_of(place) == state:
        counts[f"{how}: ended bit-identical"] += 1
        counts["LOST: leftovers"] += len(list(place.rglob("*.partial")))
    elif code in REFUSED and not any(map(has_checkpoint, runs_in(place))):
        told = re.search(r"start a new (run|sweep)", last_line(said))
        counts[f"{how}: refused, nothing was saved yet" if told else "LOST: way"] += 1
    else:
        counts[f"LOST: {how} resumed with {code}: {last_line(said)}"] += 1
    shutil.rmtree(place, ignore_errors=True)
    return +counts


def last_line(said: Path) -> str:
    return (said.read_text().splitlines() or [""])[-1]


def train(
    words: list[str],
    before: Before | None = None,
    kill_after: float | None = None,
    said: Path = Path(os.devnull),
) -> int:
    """The exit code of `train.py <words>` in a fork of this process.

    What it says on stderr goes to the file `said`.
    """

    def command() -> None:
        with open(os.devnull, "w") as sys.stdout, said.open("w") as sys.stderr:
            draw_random_numbers()
            if before:
                before()
            sys.argv = [TRAIN, *words]
            runpy.run_path(TRAIN, run_name="__main__")

    return exit_code_of(command, kill_after)


def exit_code_of(command: Callable[[], None], kill_after: float | None = None) -> int:
    process = multiprocessing.get_context("fork").Process(target=command)
    process.start()
    process.join(kill_after)
    if process.is_alive():
        process.kill()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def draw_random_numbers() -> None:
    """Make training depend on all generators: noise on every gradient."""
    check = FiniteCheck.on_before_optimizer_step

    def noisy(self: Any, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        check(self, trainer, pl_module, optimizer)
        for parameter in pl_module.parameters():
            noise = torch.randn_like(parameter) + np.random.rand() + random.random()
            parameter.grad += 1e-3 * noise

    FiniteCheck.on_before_optimizer_step = noisy  # type: ignore[method-assign]


def die_in_write(tally: Path, moment: int) -> None:
    """Kill this process at one of the moments of its checkpoint writes; tally those before.

    The moments are: half of the content written, all of it but not synced, synced, before
    and after each rename, for checkpoints and for their checksums.
    """
    fdopen, fsync, replace = os.fdopen, os.fsync, os.replace

    def pass_moment(path: Any) -> None:
        if "checkpoints" in str(path):
            with tally.open("ab", buffering=0) as file:
                file.write(b".")
            if tally.stat().st_size - 1 == moment:
                os.kill(os.getpid(), signal.SIGKILL)

    def path_of(handle: int) -> str:
        return os.readlink(f"/proc/self/fd/{handle}")

    def half_written(handle: int, *args: Any, **kwargs: Any) -> Any:
        file = fdopen(handle, *args, **kwargs)
        write = file.write

        def write_in_halves(content: bytes) -> None:
            write(content[: len(content) // 2])
            file.flush()
            pass_moment(path_of(handle))
            write(content[len(content) // 2 :])

        if "checkpoints" in path_of(handle):
            return Halves(file, write_in_halves)
        return file

    def slow_fsync(handle: int) -> None:
        pass_moment(path_of(handle))
        fsync(handle)
        pass_moment(path_of(handle))

    def slow_replace(source: Any, target: Any) -> None:
        pass_moment(target)
        replace(source, target)
        pass_moment(target)

    os.fdopen, os.fsync, os.replace = half_written, slow_fsync, slow_replace  # type: ignore


class Halves:
    """A file whose `write` is another one."""

    def __init__(self, file: Any, write: Callable[[bytes], None]) -> None:
        self.file, self.write = file, write

    def __enter__(self) -> "Halves":
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def corrupt(run: Path) -> list[Path]:
    """Checkpoints that have a final name and do not verify."""
    bad = []
    for path in (run / "checkpoints").glob("*.ckpt"):
        try:
            read_checkpoint(path)
        except CheckpointError:
            bad.append(path)
    return bad


TOLD_BY_A_CLOCK = re.compile(r"/seconds$|/History/(length|sha256|rows)")
"""Seconds, and what a checkpoint knows of the file that has a column of them."""


def fingerprint(run: Path) -> dict[str, Any]:
    """All that a finished run has come to, but for what a clock decides."""
    with (run / HISTORY).open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        del row["seconds"]
    metrics = json.loads((run / METRICS).read_text())
    del metrics["train_seconds"]
    checkpoints = {
        f"{name}{key}": leaf
        for name in (LAST, BEST)
        for key, leaf in leaves(read_checkpoint(run / name))
        if not TOLD_BY_A_CLOCK.search(key)
    }
    return {"history": rows, "metrics": metrics} | checkpoints


def leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Paths and values of a tree of containers; of a tensor its dtype, shape and bytes."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield from leaves(value, f"{key}/{name}")
    elif isinstance(node, (list, tuple)):
        for number, value in enumerate(node):
            yield from leaves(value, f"{key}/{number}")
    elif isinstance(node, torch.Tensor):
        content = node.contiguous().numpy().tobytes()
        yield key, (str(node.dtype), node.shape, hashlib.sha256(content).hexdigest())
    else:
        yield key, node if node == node else "nan"


def fuzz(run: Path, rng: random.Random, number: int) -> Counter[str]:
    """Damage the checkpoint, or what its checksum says, and read it again."""
    counts: Counter[str] = Counter()
    whole = (run / LAST).read_bytes()
    said = checksum_of(run / LAST).read_bytes()
    with tempfile.TemporaryDirectory(dir=run.parent) as name:
        path = Path(name) / LAST.name
        for _ in range(number):
            damage = rng.choice(list(DAMAGES))
            content, checksum = DAMAGES[damage](whole, said, rng)
            path.write_bytes(content)
            checksum_of(path).write_bytes(checksum)
            try:
                read_checkpoint(path)
                counts[f"LOST: loaded silently, {damage}"] += 1
            except CheckpointError:
                counts[f"fuzzed checkpoints refused, {damage}"] += 1
    return counts


def flip(content: bytes, rng: random.Random, bits: int = 1) -> bytes:
    changed = bytearray(content)
    for position in rng.sample(range(8 * len(content)), bits):
        changed[position // 8] ^= 1 << position % 8
    return bytes(changed)


def blank(content: bytes, rng: random.Random) -> bytes:
    """A block of zeros, as a hole of a file system leaves it; the file differs from it."""
    start = rng.randrange(len(content) // 2)
    end = start + rng.randrange(512, 4096)
    return content[:start] + bytes(len(content[start:end])) + content[end:]


Damage = Callable[[bytes, bytes, random.Random], tuple[bytes, bytes]]

DAMAGES: dict[str, Damage] = {
    "one bit flipped": lambda c, s, rng: (flip(c, rng), s),
    "many bits flipped": lambda c, s, rng: (flip(c, rng, rng.randrange(2, 99)), s),
    "cut": lambda c, s, rng: (c[: rng.randrange(len(c))], s),
    "longer": lambda c, s, rng: (c + rng.randbytes(rng.randrange(1, 99)), s),
    "a block of zeros": lambda c, s, rng: (blank(c, rng), s),
    "noise": lambda c, s, rng: (rng.randbytes(len(c)), s),
    "another digest": lambda c, s, rng: (c, flip(s[:64], rng) + s[64:]),
    "no digest": lambda c, s, rng: (c, b"\n" * rng.randrange(9)),
}


def make_together(folder: Path, rng: random.Random) -> Counter[str]:
    """Many processes make one cache, some are killed; all others read equal bytes."""
    counts: Counter[str] = Counter()
    recipe, seed = QtipsRecipe(), rng.randrange(1000)
    expected = digest_of(make_qtips(256, recipe, seed))
    folder.mkdir()

    def make(number: int) -> None:
        layout = {"images": ("U8", 256, 1, 64, 64), "labels": ("U8", 256, 64, 64)}
        tensors = cached(folder, "q", {}, lambda: make_qtips(256, recipe, seed), layout)
        folder.with_name(f"read-{number}").write_text(digest_of(tensors))

    context = multiprocessing.get_context("fork")
    makers = [context.Process(target=make, args=(n,)) for n in range(MAKERS)]
    for maker in makers:
        maker.start()
    for maker in rng.sample(makers, rng.randrange(1, MAKERS // 2)):
        time.sleep(rng.uniform(0, 0.1))
        maker.kill()
    for number, maker in enumerate(makers):
        maker.join()
        answer = folder.with_name(f"read-{number}")
        if maker.exitcode == -signal.SIGKILL:
            counts["makers of a cache killed"] += 1
        elif maker.exitcode == 0 and answer.read_text() == expected:
            counts["readers of a cache with equal bytes"] += 1
        else:
            counts["LOST: a reader of a cache failed or read other bytes"] += 1
        answer.unlink(missing_ok=True)
    unfinished = {path for pattern in LEFTOVERS for path in folder.glob(pattern)}
    finals = [path.suffix for path in set(folder.iterdir()) - unfinished]
    counts["LOST: not one file under a final name"] += finals != [".safetensors"]
    return +counts


def digest_of(tensors: dict[str, torch.Tensor]) -> str:
    return hashlib.sha256(repr(list(leaves(tensors))).encode()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
