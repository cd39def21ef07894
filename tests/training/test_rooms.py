"""The recipe's import rule, as drawn in `training/__init__.py`: a room imports only from rooms above it."""

import ast
import re
from pathlib import Path

import pytest

import training

FOLDER = Path(training.__file__).parent
DRAWING = re.findall(r"^    (\w+(?:, \w+)*)  ", training.__doc__ or "", flags=re.MULTILINE)
ROOMS = [room for line in DRAWING for room in line.split(", ")]


def imports(path: Path) -> set[str]:
    """Rooms of `training`, and packages of this repository, that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "training":
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("training."):
            names.add((node.module or "").split(".")[1])
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("zeroshot"):
            names.add(node.module or "")
    return names


def test_every_room_is_in_the_drawing() -> None:
    assert sorted(ROOMS) == sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_from_above(room: str) -> None:
    allowed = {*ROOMS[: ROOMS.index(room)], "zeroshot.model.config"}
    assert imports(FOLDER / f"{room}.py") <= allowed
