"""A picture of TensorBoard's HParams tab, drawn by headless Chromium.

`python scripts/maintenance/screenshot_dashboard.py logdir=<sweep> out=dashboard.png`
"""

from imex_experiments.process.interrupts import end_at_once

if __name__ == "__main__":
    end_at_once()  # until the imports are done, which takes seconds

from dataclasses import dataclass
from pathlib import Path

from dashboard import browsing, serving, sessions
from omegaconf import MISSING

from imex_experiments.config.arguments import parse_arguments
from imex_experiments.errors import ConfigError
from imex_experiments.process.command import run_command

WIDTH, ABOVE, ROW = 2140, 210, 37
"""The page, pixels: its width, the height of all but the rows, and that of one row."""


@dataclass
class Arguments:
    logdir: str = MISSING
    out: str = MISSING


def main() -> None:
    args = parse_arguments(Arguments)
    if not Path(args.out).absolute().parent.is_dir():
        raise ConfigError(f"out={args.out}: no such folder")
    with browsing() as page, serving(Path(args.logdir)) as address:
        runs = [session["name"] for session in sessions(address)]
        page.set_viewport_size({"width": WIDTH, "height": ABOVE + ROW * len(runs)})
        page.goto(f"{address}/#hparams")
        table = page.locator("vaadin-grid").first
        for run in runs:
            table.get_by_text(run, exact=True).wait_for()
        # As if their edges were drawn: run names are long, all other columns short.
        for index, column in enumerate(page.locator("vaadin-grid-column").all()):
            width = "120px" if index else "390px"
            column.evaluate("(column, width) => { column.width = width }", width)
        page.screenshot(path=args.out)


if __name__ == "__main__":
    run_command(main)
