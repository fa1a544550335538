"""Run imex_experiments/commands/inspect_nyu.py."""

from imex_experiments.commands.entry import run

if __name__ == "__main__":
    run("inspect_nyu")
