"""Folders of strangers: nothing is run, written elsewhere, or read that is not theirs."""

import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import re
import runpy
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any

import pytest
from conftest import ROOT
from strangers import Stranger, strangers

from imex_experiments.errors import FULL_ERROR
from imex_experiments.sweeps import plan

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="uses FIFOs and /dev/zero"
)

SECRET = "the-secret-of-the-user"
SECONDS, BYTES = 5.0, 2**30

WATCHED = {
    *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen"),
    *("pickle.find_class", "socket.connect", "os.fork"),
}

OWN = re.compile(
    r"^\('(git|uname)'"
    r"|^\('(omegaconf\.(base|nodes|dictconfig|listconfig)|hydra\.(conf|types)"
    r"|hydra\._internal\.core_plugins\.basic_(launcher|sweeper))', '[\w.]+'\)"
    r"|^\('builtins', '(bool|dict|int|list|str|float)'\)"
    r"|^\('(typing|collections)', '(Any|Dict|List|defaultdict)'\)"
)
"""What every command does: git for its commit, uname for the processor, and classes of
configurations, which the plan of a sweep copies by pickling its own."""


class Slow(BaseException):
    """A command that took too long."""


def stop(*_: Any) -> None:
    raise Slow


def listing(folder: Path) -> dict[str, str]:
    """Digests of all that lies in a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "folder"
        for path in sorted(folder.rglob("*"))
    }


@dataclass(frozen=True)
class Answer:
    """What a command ended with, said and did; `seconds` are those of the processor."""

    code: object
    said: str
    events: list[str]
    seconds: float
    peak: int


def run_all(table: dict[str, Stranger], home: Path, out: Path) -> None:
    """In a fork: each command as a user would give it."""
    os.environ |= {"HOME": str(home), "TMPDIR": str(home / "tmp"), "SECRET": SECRET}
    tempfile.tempdir = None
    os.chdir(home)
    events: list[str] = []

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event in WATCHED and not OWN.search(str(arguments)):
            events.append(f"{event} {arguments}"[:300])

    sys.addaudithook(watch)
    plan.can_fork = lambda: False  # a fork would be watched in vain
    signal.signal(signal.SIGALRM, stop)
    answers = {}
    for name, stranger in table.items():
        events.clear()
        os.environ.pop(FULL_ERROR, None)  # the command before has set it
        said, start = io.StringIO(), time.process_time()
        sys.argv = [stranger.script, *stranger.words]
        code: object = None
        signal.setitimer(signal.ITIMER_REAL, 6 * SECONDS)
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                runpy.run_path(str(ROOT / stranger.script), run_name="__main__")
            except SystemExit as end:
                code = end.code
            except BaseException as error:
                code = repr(error)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        seconds, peak = time.process_time() - start, getrusage(RUSAGE_SELF).ru_maxrss
        answers[name] = [code, said.getvalue(), [*events], seconds, 1024 * peak]
    out.write_text(json.dumps(answers))


@dataclass(frozen=True)
class Visit:
    """All commands, their answers, and the user's files before and after."""

    table: dict[str, Stranger]
    answers: dict[str, Answer]
    before: dict[str, str]
    after: dict[str, str]
    files: list[Path]


@pytest.fixture(scope="module")
def visit(
    trained: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Visit:
    folder = tmp_path_factory.mktemp("strangers")
    user = tmp_path_factory.mktemp("user")
    (home := user / "home").mkdir()
    (home / "tmp").mkdir()
    (home / ".bashrc").write_text("# the user's\n")
    table = strangers(trained, folder, home)
    before, out = listing(user), folder / "answers.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMEX_CACHE", str(cache))
        process = multiprocessing.get_context("fork").Process(
            target=run_all, args=(table, home, out)
        )
        process.start()
    process.join(500)
    process.kill()
    answers = {
        name: Answer(*rest) for name, rest in json.loads(out.read_text()).items()
    }
    if os.environ.get("KEEP"):
        Path(os.environ["KEEP"]).write_text(out.read_text())
    out.unlink()
    files = [path for path in [*folder.rglob("*"), *user.rglob("*")] if path.is_file()]
    return Visit(table, answers, before, listing(user), files)


def test_each_is_refused_in_one_line_or_harmless(visit: Visit) -> None:
    assert len(visit.table) >= 100
    wrong = {
        name: (answer.code, answer.said[-500:])
        for name, answer in visit.answers.items()
        if answer.code
        not in ((0, 2, 3, 4) if visit.table[name].harmless else (2, 3, 4))
        or (answer.code and answer.said.count("error: ") != 1)
        or "Traceback" in answer.said
    }
    assert wrong == {}


def test_nothing_is_run(visit: Visit) -> None:
    assert {n: a.events for n, a in visit.answers.items() if a.events} == {}


def test_nothing_is_written_elsewhere(visit: Visit) -> None:
    assert visit.after == visit.before


def test_nothing_is_read_from_the_environment(visit: Visit) -> None:
    told = [name for name, answer in visit.answers.items() if SECRET in answer.said]
    small = [path for path in visit.files if path.stat().st_size < 2**20]
    told += [str(path) for path in small if SECRET.encode() in path.read_bytes()]
    told += [str(path) for path in visit.files if SECRET in str(path)]
    assert told == []


def test_each_is_done_in_seconds_and_a_gigabyte(visit: Visit) -> None:
    slow = {n: a.seconds for n, a in visit.answers.items() if a.seconds > SECONDS}
    assert slow == {}
    peaks = [answer.peak for answer in visit.answers.values()]
    assert max(peaks) - getrusage(RUSAGE_SELF).ru_maxrss * 1024 < BYTES
