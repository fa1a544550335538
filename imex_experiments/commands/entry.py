"""Start a command of this room; nothing that takes time is imported here."""

import ast
import sys
from importlib import import_module
from pathlib import Path

from imex_experiments.errors import ConfigError, nearest
from imex_experiments.installed import TRAIN
from imex_experiments.process.console import lenient_console
from imex_experiments.process.interrupts import end_at_once
from imex_experiments.process.spared import without_unused

HELP = ("-h", "--help")


def run(name: str) -> None:
    """Run the command `name` on sys.argv, and end the process with its exit code."""
    end_at_once()  # until the imports are done, which takes seconds
    display = import_module("imex_experiments.config.display")
    if name == "train" and display.only_prints(sys.argv[1:]):
        command = display
    else:
        with without_unused():
            command = import_module(f"imex_experiments.commands.{name}")
    process = import_module("imex_experiments.process.command")
    process.run_command(command.main)


def main() -> None:
    """Run `imex <command> <arguments>`."""
    name, *arguments = sys.argv[1:] or HELP
    if name in HELP:
        with lenient_console():
            print(usage())
        return
    if name not in summaries():
        print(
            f"error: {name}: no such command, {nearest(name, summaries())}",
            file=sys.stderr,
        )
        sys.exit(ConfigError.exit_code)
    # Lightning starts sys.argv again for each further device, Ray from its folder.
    sys.argv = [str(TRAIN), *arguments]
    run(name)


def usage() -> str:
    """Return the list of commands, one line each."""
    width = max(map(len, summaries()))
    lines = [f"  {name:{width}}  {line}" for name, line in summaries().items()]
    about = "imex <command> <arguments>; imex <command> --help explains one"
    return "\n".join([about, "", *lines])


def summaries() -> dict[str, str]:
    """Return the commands, and what each of them does, by the docstrings of their files."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    lines = {
        file.stem: ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        for file in files
        if file.stem not in ("__init__", "entry")
    }
    return {
        name: about.splitlines()[0].split(": `")[0].rstrip(".")
        for name, about in lines.items()
    }
