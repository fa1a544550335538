"""The dashboards over a sweep, asked and looked at through a real TensorBoard."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
from conftest import ROOT, Command
from dashboard import CHROMIUM, ask, browsing, serving, sessions
from filelock import FileLock

from imex_experiments.errors import ConfigError

SETTINGS = {"model", "data", "seed", "lr", "batch_size", "epochs", "h", "alpha"}

METRICS = {
    "best/val/miou": "val/miou",
    "test/miou": "test/miou",
    "val/miou": "last/val/miou",
    "best/val/loss": "val/loss",
    "test/loss": "test/loss",
}
"""The columns of the HParams tab, in order, and their names in metrics.json."""


@pytest.fixture(scope="module")
def sweep(forked: Command, shared: Path) -> Path:
    """Two networks at two values of alpha, one sweep for all processes of pytest-xdist."""
    cwd = shared / "dashboard"
    words = ["model=imexnet,resnet", "model.alpha=2,10", "model.widths=[2,4]"]
    words += ["trainer.max_epochs=2", "trainer.log_every_n_steps=1"]
    words += ["data.train=16", "data.val=4", "data.test=4"]
    with FileLock(shared / "dashboard.lock"):
        if not cwd.exists():
            cwd.mkdir()
            done = forked(str(ROOT / "train.py"), "-m", *words, cwd=cwd)
            assert done.returncode == 0, done.stderr
    (sweep,) = (cwd / "outputs/sweeps").iterdir()
    return sweep


@pytest.fixture(scope="module")
def address(sweep: Path) -> Iterator[str]:
    with serving(sweep) as address:
        yield address


@pytest.fixture(scope="module")
def runs(sweep: Path) -> list[str]:
    """The jobs as TensorBoard calls them, by their numbers."""
    return [f"{job.name}/tensorboard" for job in sorted(sweep.glob("[0-9]_*"))]


def test_hparams_tab_compares_all_jobs_with_true_values(
    address: str, sweep: Path, runs: list[str]
) -> None:
    rows = {session["name"]: session for session in sessions(address)}
    assert len(runs) == 4
    assert sorted(rows) == runs
    compared = []
    for run, row in rows.items():
        settings = row["hparams"]
        assert settings.keys() == SETTINGS
        compared.append((settings["model"], settings["alpha"]))
        recorded = json.loads((sweep / run).with_name("metrics.json").read_text())
        shown = {m["name"]["tag"]: m["value"] for m in row["metricValues"]}
        assert shown == {
            tag: pytest.approx(recorded[name], rel=1e-6)
            for tag, name in METRICS.items()
        }
        (session,) = row["sessions"]
        assert session["status"] == "STATUS_SUCCESS"
        assert 0 < session["startTimeSecs"] <= session["endTimeSecs"]
    assert sorted(compared) == [
        *(("imexnet", 2), ("imexnet", 10)),
        *(("resnet", 0), ("resnet", 0)),
    ]


def test_columns_that_compare_come_first(address: str) -> None:
    """TensorBoard shows five settings and five metrics until more are ticked."""
    experiment = ask(f"{address}/data/plugin/hparams/experiment", experimentName="")
    settings = [info["name"] for info in experiment["hparamInfos"]]
    assert set(settings) == SETTINGS
    assert set(settings[:5]) == {"model", "alpha", "h", "lr", "seed"}
    assert [m["name"]["tag"] for m in experiment["metricInfos"]] == list(METRICS)


def test_the_other_tabs_reach_every_job(address: str, runs: list[str]) -> None:
    """Scalars, the overlay of all jobs in custom scalars, and the images themselves."""
    scalars = ask(f"{address}/data/plugin/scalars/tags")
    assert sorted(scalars) == runs
    layout = ask(f"{address}/data/plugin/custom_scalars/layout")
    (category,) = layout["category"]
    overlaid = {
        chart["title"]: chart["multiline"]["tag"] for chart in category["chart"]
    }
    assert overlaid["loss"] == ["train/loss", "val/loss"]
    images = ask(f"{address}/data/plugin/images/tags")
    for run in runs:
        assert all(set(tags) <= scalars[run].keys() for tags in overlaid.values())
        for tag in overlaid["loss"]:
            where = urlencode({"tag": tag, "run": run})
            curve = ask(f"{address}/data/plugin/custom_scalars/scalars?{where}")
            assert len(curve["regex_valid"] and curve["tag_to_events"][tag]) == 2
        where = urlencode({"tag": "val/segmentation", "run": run, "sample": 0})
        assert "val/segmentation" in images[run]
        sheets = ask(f"{address}/data/plugin/images/images?{where}")
        assert len(sheets) == 2
        query = sheets[-1]["query"]
        with urlopen(f"{address}/data/plugin/images/individualImage?{query}") as image:
            assert image.read(8) == b"\x89PNG\r\n\x1a\n"


@pytest.mark.skipif(
    not any(map(shutil.which, CHROMIUM)), reason="no Chromium: apt-get install chromium"
)
def test_a_browser_shows_the_jobs(address: str, runs: list[str]) -> None:
    """The rendered table has every run and column, and the overlay every curve."""
    errors: list[str] = []
    with browsing() as page:
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda m: m.type == "error" and errors.append(m.text))
        page.set_viewport_size({"width": 2400, "height": 900})
        page.goto(f"{address}/#hparams")
        table = page.locator("vaadin-grid").first
        for text in (*runs, *METRICS, "model", "alpha", "h", "lr", "seed"):
            table.get_by_text(text, exact=True).wait_for()
        assert table.get_by_text("imexnet", exact=True).count() == 2
        assert table.get_by_text("resnet", exact=True).count() == 2
        page.goto(f"{address}/#custom_scalars")
        page.get_by_text("Matches (8)").first.wait_for()  # two curves of each job
        for run in runs:
            page.get_by_text(run, exact=True).locator("visible=true").first.wait_for()
    assert errors == []


@pytest.mark.parametrize("missing", ["Chromium", "playwright"])
def test_a_missing_browser_is_told_with_the_remedy(
    missing: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    if missing == "playwright":
        monkeypatch.setitem(sys.modules, "playwright.sync_api", None)
    told = f"{missing} is missing: (apt-get|pip) install"
    with pytest.raises(ConfigError, match=told), browsing():
        pass


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no event files"), serving(tmp_path):
        pass
