"""Run imex_experiments/commands/stability.py."""

from imex_experiments.commands.entry import run

if __name__ == "__main__":
    run("stability")
