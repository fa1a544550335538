"""Write what a run logs to a CSV file, which a resumed run continues."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.loggers.logger import rank_zero_experiment

from imex_experiments.errors import CheckpointError
from imex_experiments.files import read_regular, write_text

MOST_BYTES = 2**30
"""Largest file that is read."""

Row = dict[str, str]


class CsvLogger(CSVLogger):
    """A CSVLogger that keeps the rows of a run that is resumed, which Lightning deletes."""

    @property
    @rank_zero_experiment
    def experiment(self) -> "Rows":
        if self._experiment is None:
            self._experiment = Rows(self.log_dir)
        return self._experiment  # type: ignore[return-value]


class Rows(ExperimentWriter):
    """The rows of `<log_dir>/metrics.csv`, one for each logging, with its step."""

    def _check_log_dir_exists(self) -> None:
        self.metrics_keys, _ = self._read()

    def discard_from(self, step: int) -> None:
        """Discard rows of this step and later ones, and a row that was cut off.

        Raises CheckpointError if the file is not a table of steps.
        """
        names, rows = self._read()
        if not names:
            return
        try:
            kept = [row for row in rows if int(row["step"]) < step]
        except (LookupError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{self.metrics_file_path}: not a table of steps; delete it"
            ) from error
        self._write(names, kept)

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        self._write(fieldnames, self._read()[1])

    def _read(self) -> tuple[list[str], list[Row]]:
        """Return the names of the columns, and the rows that end with a newline."""
        path = Path(self.metrics_file_path)
        if not path.is_file():
            return [], []
        lines = read_regular(path, MOST_BYTES).decode(errors="replace").splitlines(True)
        table = csv.DictReader(line for line in lines if line.endswith("\n"))
        return list(table.fieldnames or []), list(table)

    def _write(self, names: Sequence[str], rows: Iterable[Row]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        write_text(Path(self.metrics_file_path), text.getvalue())
