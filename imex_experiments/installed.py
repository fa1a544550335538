"""Locate what comes with the package: its configuration and the script that trains."""

from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
CONF = CHECKOUT / "conf"
TRAIN = CHECKOUT / "train.py"
