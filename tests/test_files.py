"""metrics.csv grows by rows, and a checkpoint knows its content by a length and a digest."""

import csv
import io
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_lightning.strategies import SingleDeviceStrategy

from imex_experiments.callbacks import History
from imex_experiments.errors import StorageError
from imex_experiments.files import GrowingTable
from imex_experiments.runs.load import read_history

ROWS = [{"epoch": n, "val/loss": 1 / n} for n in range(1, 6)]


@pytest.fixture
def table(tmp_path: Path) -> GrowingTable:
    return GrowingTable(tmp_path / "metrics.csv")


def epochs(table: GrowingTable) -> list[str]:
    return [row["epoch"] for row in read_history(table.path.parent)]


def test_rows_are_added_and_the_columns_stay(table: GrowingTable) -> None:
    table.append(ROWS[:1])
    inode = table.path.stat().st_ino
    table.append(ROWS[1:4])
    table.append([])
    assert epochs(table) == ["1", "2", "3", "4"]
    assert [float(row["val/loss"]) for row in read_history(table.path.parent)] == [
        1 / n for n in range(1, 5)
    ]
    assert table.path.stat().st_ino == inode
    with pytest.raises(ValueError, match="val/other"):
        table.append([{"epoch": 5, "val/other": 1}])
    assert epochs(table) == ["1", "2", "3", "4"]


@pytest.mark.parametrize("behind", [b"", b"5,0.", b"5,0.1\n6,0.2\n"])
def test_a_resumed_run_goes_on_after_the_rows_its_checkpoint_knows(
    behind: bytes, table: GrowingTable
) -> None:
    table.append(ROWS[:2])
    known = table.state()
    table.append(ROWS[2:3])
    with table.path.open("ab") as file:
        file.write(behind)
    resumed = GrowingTable(table.path)
    resumed.restore(**known)
    resumed.append(ROWS[3:])
    assert epochs(resumed) == ["1", "2", "4", "5"]
    again = GrowingTable(table.path)
    again.restore(**resumed.state())
    assert again.state() == resumed.state()


@pytest.mark.parametrize(
    "change", ["edited", "deleted", "shorter", "a link", "a folder"]
)
def test_a_table_that_is_not_the_one_written_is_set_aside(
    change: str, table: GrowingTable, caplog: pytest.LogCaptureFixture
) -> None:
    """A run does not end for it; what a link leads to is neither read nor written."""
    table.append(ROWS[:2])
    known, content = table.state(), table.path.read_bytes()
    other = table.path.with_name("other")
    other.write_bytes(content)
    table.path.unlink()
    if change == "edited":
        table.path.write_bytes(content.replace(b"1.0", b"9.0"))
    elif change == "shorter":
        table.path.write_bytes(content[:-3])
    elif change == "a link":
        table.path.symlink_to(other)
    elif change == "a folder":
        table.path.mkdir()
    resumed = GrowingTable(table.path)
    resumed.restore(**known)
    resumed.append(ROWS[2:])
    assert "not the rows that were written" in caplog.text
    assert epochs(resumed) == ["3", "4", "5"]
    assert other.read_bytes() == content
    assert os.path.lexists(f"{table.path}.damaged") == (change != "deleted")


def test_a_folder_that_is_gone_is_not_made_anew(tmp_path: Path) -> None:
    table = GrowingTable(tmp_path / "run/metrics.csv")
    with pytest.raises(StorageError, match="run: no longer there, deleted or renamed"):
        table.append(ROWS)
    assert list(tmp_path.iterdir()) == []


def test_rows_of_a_disk_that_was_full_are_written_when_it_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And they are in the checkpoint meanwhile."""
    import resource

    history = History(str(tmp_path / "metrics.csv"))
    validate(history, 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (tmp_path / "metrics.csv").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 8, limits[1]))
    try:
        validate(history, 2)
        validate(history, 3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "metrics.csv lags behind" in caplog.text
    assert [row["epoch"] for row in read_history(tmp_path)] == ["1"]
    resumed = History(str(tmp_path / "metrics.csv"))
    resumed.load_state_dict(history.state_dict())
    assert resumed.measured()["last/val/loss"] == 3.0
    validate(resumed, 4)
    assert [row["epoch"] for row in read_history(tmp_path)] == ["1", "2", "3", "4"]


def validate(history: History, epoch: int) -> None:
    """One validation with one step before it."""
    groups = [SimpleNamespace(param_groups=[{"lr": 0.1}])]
    trainer: Any = SimpleNamespace(
        is_global_zero=True,
        current_epoch=epoch - 1,
        global_step=epoch,
        max_epochs=9,
        optimizers=groups,
        callback_metrics={"val/loss": float(epoch)},
        strategy=SingleDeviceStrategy(torch.device("cpu")),
    )
    module = SimpleNamespace(monitor="val/loss")
    history.on_train_batch_end(trainer, module, {"loss": torch.tensor(1.0)}, None, 0)
    history.on_validation_end(trainer, module)


def test_a_long_history_costs_a_validation_nothing(tmp_path: Path) -> None:
    """100,000 rows: with all of them in the checkpoint it was 4.7 s and 17 MB."""
    history = History(str(tmp_path / "metrics.csv"))
    validate(history, 1)
    history.waiting = [dict(history.row, epoch=n) for n in range(2, 100_001)]
    validate(history, 100_001)
    buffer = io.BytesIO()
    seconds = []
    for epoch in range(100_002, 100_007):
        begun = time.perf_counter()
        validate(history, epoch)
        torch.save(history.state_dict(), buffer)
        seconds.append(time.perf_counter() - begun)
    assert min(seconds) < 0.05  # the least of five: the machine is not ours alone
    assert buffer.tell() / 5 < 4096
    assert len(read_history(tmp_path)) == 100_006


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(allow_nan=False), st.text(st.characters(codec="utf-8"))),
        min_size=1,
    ),
    st.data(),
)
def test_any_rows_in_any_parts_are_one_table(
    tmp_path_factory: pytest.TempPathFactory,
    values: list[tuple[float, str]],
    data: st.DataObject,
) -> None:
    """Byte for byte what a writer of all of them at once gives."""
    rows = [{"a": number, "b": text} for number, text in values]
    whole = io.StringIO(newline="")
    writer = csv.DictWriter(whole, ["a", "b"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path = tmp_path_factory.mktemp("table") / "t.csv"
    known: dict[str, Any] = {"length": 0, "sha256": None}
    while rows:
        size = data.draw(st.integers(1, len(rows)))
        table = GrowingTable(path)
        table.restore(**known)
        table.append(rows[:size])
        known, rows = table.state(), rows[size:]
    assert path.read_bytes() == whole.getvalue().encode()
