"""Which room of python/dhp may import which; docs/architecture.md says what each is for."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[3] / "python" / "dhp"

MAY_IMPORT = {
    "base": set(),
    "settings": {"base", "data"},
    "run": {"base"},
    "task": {"data"},
    "data": {"base", "task"},
    "models": {"base", "data", "run", "settings", "task"},
    "step": {"run", "settings"},
    "save": {"base", "run", "settings", "step"},
    "cost": {"base", "data", "models", "run", "task"},
    "watch": {"base", "run", "settings"},
    "loop": {"base", "cost", "data", "models", "run", "save", "settings", "watch"},
    "report": {"base", "watch"},
    "stats": {"base", "data", "report"},
    "demo": {"base", "data"},
}


def imported_rooms(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"dhp.{a.name}" for a in node.names} if node.module == "dhp" else {node.module}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("dhp.")} - {"_core"}


def test_rooms_import_only_the_rooms_that_they_may() -> None:
    seen = 0
    for file in sorted(ROOT.glob("*/*.py")):
        room = file.parent.name
        assert room in MAY_IMPORT, f"a new room, {room}: say here what it may import"
        others = imported_rooms(file) - {room}
        seen += len(others)
        assert others <= MAY_IMPORT[room], f"{file.relative_to(ROOT)} imports {sorted(others - MAY_IMPORT[room])}"
    assert seen > 40
