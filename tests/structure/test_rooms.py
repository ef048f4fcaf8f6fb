"""The rooms of `common`: imports point downward only, none of them goes in a circle, and the root stays small."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

# From the ground up: what stands here imports only what stands before it, or beside it in its own room.
ROOMS = (
    "errors", "system", "console", "machine", "config", "store", "models", "data", "stage", "cost", "evaluation",
    "rewards", "training", "report", "stages", "engine", "cli", "__main__",
)  # fmt: skip
ROOT_FILES = 6
Graph = dict[str, set[str]]


def name_of(path: Path, root: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path, modules: set[str]) -> set[str]:
    """Return the modules that a file imports, at any depth of its code, for types included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & modules
            found |= submodules or ({node.module} & modules)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & modules
    return found


def graph(root: Path = REPOSITORY) -> Graph:
    """Return which modules each module of `common` imports; the package itself is nobody's dependency."""
    paths = {name_of(path, root): path for path in (root / "common").rglob("*.py")}
    modules = set(paths) - {"common"}
    return {name: imported(path, modules) - {name} for name, path in paths.items() if name in modules}


def upward(found: Graph) -> list[str]:
    """Return the imports that point to a higher room."""
    floor = {room: number for number, room in enumerate(ROOMS)}
    pairs = ((name, target) for name, targets in found.items() for target in targets)
    return sorted(f"{name} -> {target}" for name, target in pairs if _floor(target, floor) > _floor(name, floor))


def _floor(module: str, floor: dict[str, int]) -> int:
    room = module.split(".")[1]
    assert room in floor, f"{module}: the room {room} is new; say in ROOMS what it stands on"
    return floor[room]


def circles(found: Graph) -> list[str]:
    """Return the modules that are left when all are taken away, again and again, that import none of the others."""
    left = {name: set(targets) for name, targets in found.items()}
    while free := [name for name, targets in left.items() if not targets & set(left)]:
        for name in free:
            del left[name]
    return sorted(left)


def test_imports_point_downward_only() -> None:
    assert upward(graph()) == []


def test_no_import_goes_in_a_circle() -> None:
    assert circles(graph()) == []


def test_modules_are_imported_by_name_in_one_place_only() -> None:
    """The registry of kinds and blocks lists a package, so that no lower room names one. All else is a statement."""
    found = []
    for path in sorted((REPOSITORY / "common").rglob("*.py")):
        calls = (node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call))
        named = [ast.unparse(call.args[0]) for call in calls if ast.unparse(call.func).endswith("import_module")]
        found += [
            (name_of(path, REPOSITORY), name) for name in named if "trl" not in name and "bitsandbytes" not in name
        ]
    assert {module for module, _ in found} == {"common.config.registry", "common.engine.preflight.inputs"}


def test_the_root_stays_small() -> None:
    assert len(list((REPOSITORY / "common").glob("*.py"))) <= ROOT_FILES


@pytest.mark.parametrize(
    ("files", "arrows", "circle"),
    [
        ({"store/a.py": "from common.stages import b\n", "stages/b.py": ""}, ["common.store.a -> common.stages.b"], []),
        ({"data/a.py": "def f():\n    import common.cli.b\n", "cli/b.py": ""}, ["common.data.a -> common.cli.b"], []),
        ({"data/a.py": "from common.data.b import x", "data/b.py": "from common.data import a"}, [], ["a", "b"]),
    ],
)
def test_a_wrong_import_is_found(files: dict[str, str], arrows: list[str], circle: list[str], tmp_path: Path) -> None:
    for name, text in files.items():
        path = tmp_path / "common" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert upward(graph(tmp_path)) == arrows
    assert circles(graph(tmp_path)) == [f"common.data.{name}" for name in circle]
