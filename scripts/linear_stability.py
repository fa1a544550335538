"""Run imex_experiments/commands/linear_stability.py."""

from imex_experiments.commands.entry import run

if __name__ == "__main__":
    run("linear_stability")
