"""Run imex_experiments/commands/reproduce.py."""

from imex_experiments.commands.entry import run

if __name__ == "__main__":
    run("reproduce")
