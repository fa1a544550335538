"""Run imex_experiments/commands/make_qtips.py."""

from imex_experiments.commands.entry import run

if __name__ == "__main__":
    run("make_qtips")
