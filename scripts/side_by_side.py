"""Run imex_experiments/commands/side_by_side.py."""

from imex_experiments.commands.entry import run

if __name__ == "__main__":
    run("side_by_side")
