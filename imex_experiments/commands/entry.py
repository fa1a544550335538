"""Start a command of this room; it imports nothing that takes time."""

from importlib import import_module

from imex_experiments.process.interrupts import end_at_once


def run(name: str) -> None:
    """Run the command `name` on sys.argv, and end the process with its exit code."""
    end_at_once()  # until the imports are done, which takes seconds
    command = import_module(f"imex_experiments.commands.{name}")
    process = import_module("imex_experiments.process.command")
    process.run_command(command.main)
