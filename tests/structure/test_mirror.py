"""`tests/` mirrors `common/`: a test file is named after the module that it tests, in the folder of its room."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

# What is about more than one module: benchmarks, documents, whole runs, golden files, real data, and the tree itself.
APART = {"bench", "docs", "end_to_end", "fuzz", "golden", "real", "structure"}


def is_mirrored(path: Path, common: Path) -> bool:
    """Whether a test file, as a path below `tests/`, is named after a module, or after one and its topic."""
    parts = path.stem.removeprefix("test_").split("_")
    names = ("_".join(parts[:number]) for number in range(len(parts), 0, -1))
    return any((common / path.parent / f"{name}.py").is_file() for name in names)


def test_every_test_file_stands_where_its_module_stands() -> None:
    tests = REPOSITORY / "tests"
    files = [path.relative_to(tests) for path in tests.rglob("test_*.py")]
    lost = [
        path.as_posix() for path in files if path.parts[0] not in APART and not is_mirrored(path, REPOSITORY / "common")
    ]
    assert sorted(lost) == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("store/test_locks.py", True),
        ("config/test_stages_peft.py", True),
        ("config/test_peft.py", False),
        ("test_locks.py", False),
    ],
)
def test_a_name_without_a_module_is_found(name: str, expected: bool) -> None:
    assert is_mirrored(Path(name), REPOSITORY / "common") is expected
