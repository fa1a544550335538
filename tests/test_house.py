"""The rooms of the house import only what they may (read from the import lines)."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "imex_experiments"

ALLOWED: dict[str, set[str]] = {
    "operators": set(),
    "solvers": set(),
    "plots": set(),
    "data": set(),
    "terms": {"operators"},
    "integrators": {"solvers"},
    "networks": {"terms", "integrators"},
    "analysis": {"operators", "solvers", "terms", "integrators", "networks"},
    "tasks": {"plots"},
    "callbacks": {"plots", "analysis", "networks", "runs"},
    "runs": {"tasks", "networks"},
}


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module or ""]
            if node.module == "imex_experiments":
                names = [f"imex_experiments.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "imex_experiments" and len(parts) > 1:
                rooms.add(parts[1])
    return rooms


def test_every_room_is_listed() -> None:
    assert {p.name for p in PACKAGE.iterdir() if (p / "__init__.py").exists()} == set(
        ALLOWED
    )


@pytest.mark.parametrize("room", ALLOWED)
def test_rooms_import_only_what_they_may(room: str) -> None:
    for path in (PACKAGE / room).rglob("*.py"):
        forbidden = imported_rooms(path) - ALLOWED[room] - {room}
        assert not forbidden, f"{path.relative_to(PACKAGE)} imports {sorted(forbidden)}"


def test_the_rule_reads_all_kinds_of_import(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text(
        "import imex_experiments.runs\n"
        "from imex_experiments import tasks\n"
        "def f():\n    from imex_experiments.data.qtips import make_qtips\n"
    )
    assert imported_rooms(file) == {"runs", "tasks", "data"}
