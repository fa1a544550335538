"""Run imex_experiments/commands/train.py, where no checkout has its train.py."""

from imex_experiments.commands.entry import run

if __name__ == "__main__":
    run("train")
