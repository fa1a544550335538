"""Run imex_experiments/commands/field_of_view.py."""

from imex_experiments.commands.entry import run

if __name__ == "__main__":
    run("field_of_view")
