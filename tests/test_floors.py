"""A folder imports only from the folders below it, wherever in a file the import stands."""

import ast
from pathlib import Path

import pytest

from tests.test_lint import FLOORS, names_of_import
from tests.tiny import ROOT


def floor_of(name: str) -> int | None:
    """Floors are counted from the top: 0 is bins."""
    first = name.partition(".")[0]
    return FLOORS.index(first) if first in FLOORS else None


def imports_going_up(path: Path) -> list[str]:
    here = floor_of(path.relative_to(ROOT).parts[0])
    nodes = ast.walk(ast.parse(path.read_text()))
    found = [(node.lineno, name) for node in nodes for name in names_of_import(node)]
    return [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for line, name in found
        if floor_of(name) is not None and floor_of(name) < here
    ]


@pytest.mark.parametrize("folder", FLOORS)
def test_no_import_goes_up(folder):
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    assert [line for path in files for line in imports_going_up(path)] == []


def test_models_base_knows_no_model():
    """What every model shares imports none of them."""
    for path in (ROOT / "models" / "base").glob("*.py"):
        names = [n for node in ast.walk(ast.parse(path.read_text())) for n in names_of_import(node)]
        assert [name for name in names if name.startswith("models.tta")] == [], path
