"""TensorBoard over finished runs, and a browser to look at it."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from imex_experiments.errors import ConfigError, RunError

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
"""Names of the browser's command."""

READING = 60.0
"""Seconds until TensorBoard must have read all runs."""


@contextmanager
def serving(logdir: Path) -> Iterator[str]:
    """The address of a TensorBoard on localhost that has read every run in `logdir`.

    It ends with the block. ConfigError if there is no run, RunError if it does not start.
    """
    runs = {file.parent for file in logdir.rglob("events.out.tfevents.*")}
    if not runs:
        raise ConfigError(f"logdir={logdir}: no event files of TensorBoard in it")
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir)]
    command += ["--host", "localhost", "--port", "0"]  # any free one
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            said = ""
            for said in server.stderr:
                if " at http://" in said:
                    break
            else:
                raise RunError(f"TensorBoard did not start: {said.strip()}")
            address = said.split(" at ")[1].split("/ ")[0]
            _wait_until_read(address, len(runs))
            yield address
        finally:
            server.terminate()


def ask(url: str, **question: Any) -> Any:
    """The JSON answer of a plug-in; a question is sent as JSON, too."""
    data = json.dumps(question).encode() if question else None
    request = Request(url, data, {"Content-Type": "application/json"})
    with urlopen(request, timeout=10) as answer:
        return json.load(answer)


def sessions(address: str) -> list[dict[str, Any]]:
    """The rows of the HParams tab, with `name`, `hparams`, `metricValues`, `sessions`."""
    states = [f"STATUS_{s}" for s in ("UNKNOWN", "SUCCESS", "FAILURE", "RUNNING")]
    url = f"{address}/data/plugin/hparams/session_groups"
    answer = ask(url, startIndex=0, sliceSize=10_000, allowedStatuses=states)
    return answer.get("sessionGroups", [])


@contextmanager
def browsing() -> Iterator[Any]:
    """A page of headless Chromium (playwright's `Page`); ConfigError if one is missing."""
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError as error:
        raise ConfigError(
            "playwright is missing: pip install -c constraints.txt -e '.[dev]'"
        ) from error
    command = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if command is None:
        raise ConfigError("Chromium is missing: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=command)
        try:
            yield browser.new_page()
        finally:
            browser.close()


def _wait_until_read(address: str, runs: int) -> None:
    """TensorBoard answers while it still reads: wait for all runs, and for no more tags."""
    end = time.monotonic() + READING
    before, now = None, ask(f"{address}/data/plugin/scalars/tags")
    while len(now) < runs or now != before:
        if time.monotonic() > end:
            raise RunError(f"TensorBoard read {len(now)} of {runs} runs in {READING} s")
        time.sleep(0.5)
        before, now = now, ask(f"{address}/data/plugin/scalars/tags")
