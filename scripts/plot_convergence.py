"""Run imex_experiments/commands/plot_convergence.py."""

from imex_experiments.commands.entry import run

if __name__ == "__main__":
    run("plot_convergence")
