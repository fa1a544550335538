"""The rooms of the house import only what they may (read from the import lines)."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "imex_experiments"

ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "facts": set(),
    "installed": set(),
    "operators": set(),
    "solvers": set(),
    "plots": set(),
    "files": {"errors"},
    "process": {"errors", "installed"},
    "terms": {"operators"},
    "integrators": {"solvers"},
    "networks": {"installed", "terms", "integrators"},
    "analysis": {"operators", "solvers", "terms", "integrators", "networks"},
    "data": {"errors", "installed", "facts", "files"},
    "tasks": {"facts", "plots"},
    "config": {"errors", "installed", "facts", "tasks", "networks"},
    "runs": {
        *("config", "errors", "installed", "facts", "files", "process", "tasks"),
        "operators",
    },
    "loggers": {"errors", "files"},
    "callbacks": {
        *("loggers", "runs", "config", "errors", "facts", "files", "process"),
        *("networks", "analysis"),
    },
    "training": {
        *("runs", "config", "errors", "installed", "facts", "files", "process"),
        *("tasks", "networks"),
    },
    "results": {"runs", "config", "errors", "installed", "files", "networks", "plots"},
    "sweeps": {
        *("training", "results", "runs", "config", "errors", "installed", "files"),
        *("process", "networks"),
    },
    "commands": {
        *("sweeps", "results", "training", "callbacks", "runs", "config", "tasks"),
        *("data", "analysis", "networks", "integrators", "terms", "process", "files"),
        *("plots", "installed", "errors", "facts"),
    },
    "interactive": {
        *("commands", "sweeps", "runs", "config", "tasks", "process", "installed"),
        "errors",
    },
}
"""A room, or a file at the package's root, and what it may import of ours."""


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


def test_the_table_of_contributing_is_this_one() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| .+? \| ?(.*?) ?\|$", page, re.MULTILINE)
    told = {room: set(filter(None, imports.split(", "))) for room, imports in rows}
    assert told == ALLOWED


def test_every_room_is_listed() -> None:
    rooms = {path.stem for path in PACKAGE.iterdir() if files_of(path)}
    assert rooms - {"__init__"} == set(ALLOWED)


def files_of(room: Path) -> list[Path]:
    return [room] if room.suffix == ".py" else sorted(room.rglob("*.py"))


def test_no_room_imports_itself_through_others() -> None:
    """The table has no circle: a room stands on rooms that do not stand on it."""
    standing: set[str] = set()
    while rest := ALLOWED.keys() - standing:
        free = {room for room in rest if ALLOWED[room] <= standing}
        assert free, f"a circle among {sorted(rest)}"
        standing |= free


@pytest.mark.parametrize("room", ALLOWED)
def test_rooms_import_only_what_they_may(room: str) -> None:
    file = PACKAGE / f"{room}.py"
    for path in files_of(file if file.exists() else PACKAGE / room):
        forbidden = imported_rooms(path) - ALLOWED[room] - {room}
        assert not forbidden, f"{path.relative_to(PACKAGE)} imports {sorted(forbidden)}"


def test_plugins_of_hydra_import_rooms_when_they_are_used() -> None:
    """Hydra imports them at the start of every command."""
    for plugin in (ROOT / "hydra_plugins").glob("*.py"):
        assert imported_rooms(plugin) == {"sweeps"}
        assert not re.search("^(import|from) (torch|imex)", plugin.read_text(), re.M)


def test_the_rule_reads_all_kinds_of_import(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text(
        "import imex_experiments.runs\n"
        "from imex_experiments import tasks\n"
        "def f():\n    from imex_experiments.data.qtips import make_qtips\n"
    )
    assert imported_rooms(file) == {"runs", "tasks", "data"}


def imported_packages(path: Path) -> set[str]:
    packages = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            packages.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.Import):
            packages |= {alias.name.partition(".")[0] for alias in node.names}
    return packages - set(sys.stdlib_module_names) - {PACKAGE.name}


def test_every_import_is_a_declared_dependency() -> None:
    """What another package happens to bring may be gone with its next version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    declared = {
        re.match(r"[\w-]+", line)[0].lower()  # type: ignore[index]
        for line in sum(extras.values(), project["dependencies"])
    }
    brought_by = packages_distributions()
    plugins = (ROOT / "hydra_plugins").glob("*.py")
    for path in [*PACKAGE.rglob("*.py"), *plugins, ROOT / "train.py"]:
        program = (path.parent / "__main__.py").exists()  # run as a folder of its own
        own = {file.stem for file in path.parent.glob("*.py")} if program else set()
        for package in imported_packages(path) - own:
            names = {name.lower() for name in brought_by.get(package, [package])}
            assert names & declared, f"{path.name} imports {package}, not declared"
