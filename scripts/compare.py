"""Run imex_experiments/commands/compare.py."""

from imex_experiments.commands.entry import run

if __name__ == "__main__":
    run("compare")
