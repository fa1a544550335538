"""Docstrings are for an engineer who opens this file first (read from the source)."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ROOMS = (
    *("operators", "terms", "integrators", "solvers", "networks"),
    *("analysis", "plots", "tasks", "data", "config", "process"),
    *("training", "callbacks", "results", "runs", "sweeps", "commands"),
)
PLACES = (
    *("imex_experiments/*.py", *(f"imex_experiments/{room}/**/*.py" for room in ROOMS)),
    "scripts/**/*.py",
)

RIDDLES = {"Of", "Those", "The same", "What", "Whether", "How"}
"""First words that leave the object of a docstring to be guessed."""

PERSONS = re.compile(r"\b(told|tells|asks|asked|somebody|nobody|pulls? back)\b")
"""Words for people, where code computes, reports or raises."""


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        bare = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if bare and isinstance(node.value.value, str):
            yield node.lineno, node.value.value


@pytest.mark.parametrize("place", PLACES)
def test_docstrings_name_their_object(place: str) -> None:
    paths = sorted(ROOT.glob(place))
    assert paths
    for path in paths:
        for line, text in docstrings(path):
            first = re.match(r"The same\b|\w+", text)
            at = f"{path.relative_to(ROOT)}:{line}: {text.splitlines()[0]}"
            assert not (first and first[0] in RIDDLES), at
            assert not PERSONS.search(text), at
