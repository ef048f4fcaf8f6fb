"""Code from outside the package runs by its bytes: what was allowed, from a copy that nobody else can write."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import ConfigError, DataError
from common.system import outside_code
from common.system.outside_code import (
    allow,
    allow_digests,
    allowed_digests,
    digest_of,
    digests_of,
    files_below,
    may_run,
    private_folder,
    read_files,
    require,
)


@pytest.fixture(autouse=True)
def _nothing_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside_code, "_allowed", set())


def test_nothing_runs_that_was_not_allowed() -> None:
    with pytest.raises(
        ConfigError, match=r"^x: this run may not execute a\.py: the code changed since the run began, or"
    ):
        require({"a.py": b"1"}, "x")
    allow({"a.py": b"1"})
    require({"elsewhere/b.py": b"1"}, "x")
    assert may_run({"a.py": b"1"})
    assert not may_run({"a.py": b"1", "b.py": b"2"})
    require({}, "x")
    passed = allowed_digests()
    outside_code._allowed.clear()
    allow_digests(passed)
    require({"a.py": b"1"}, "x")


def test_a_digest_is_of_names_and_bytes() -> None:
    digests = [digest_of(digests_of(files)) for files in ({"a": b"1", "b": b"2"}, {"b": b"2", "a": b"1"})]
    assert digests[0] == digests[1]
    for other in ({"a": b"2", "b": b"1"}, {"a": b"1"}, {"a": b"1", "c": b"2"}, {"a": b"1", "b": b"3"}):
        assert digest_of(digests_of(other)) != digests[0]


def test_files_are_found_without_what_is_hidden_or_linked(tmp_path: Path) -> None:
    for name in ("a.py", "b/c.py", ".git/x.py", "b/__pycache__/c.pyc", ".swap", "a.py~", "#a.py#"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    (tmp_path / "linked").symlink_to(tmp_path / "b")
    (tmp_path / "link.py").symlink_to(tmp_path / "a.py")
    (tmp_path / "nowhere.py").symlink_to(tmp_path / "missing")
    found = dict(files_below(tmp_path))
    assert list(found) == ["a.py", "link.py", "nowhere.py", "b/c.py"]
    assert read_files(found.items(), "x") == {"a.py": b"a.py", "link.py": b"a.py", "b/c.py": b"b/c.py"}


def test_too_much_and_what_is_no_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.py").write_bytes(b"12")
    monkeypatch.setattr(outside_code, "MOST_BYTES", 1)
    with pytest.raises(
        ConfigError, match=r"^x holds more than 0 MiB or 10,000 files of what may be code, at a\.py: too"
    ):
        read_files(files_below(tmp_path), "x")
    (tmp_path / "a.py").unlink()
    os.mkfifo(tmp_path / "a.py")
    with pytest.raises(DataError, match="a named pipe"):
        read_files(files_below(tmp_path), "x")


def test_a_private_folder_holds_copies(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text("{}", encoding="utf-8")
    folder = private_folder("mine", {"a.py": b"1", "b/c.py": b"2"}, {"d/rows.json": tmp_path / "rows.json"})
    assert folder.name == "mine"
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    assert (folder / "b" / "c.py").read_bytes() == b"2"
    assert (folder / "d" / "rows.json").resolve() == tmp_path / "rows.json"
    assert private_folder("mine", {"b/c.py": b"2", "a.py": b"1"}, {"d/rows.json": tmp_path / "rows.json"}) == folder
    assert private_folder("mine", {"a.py": b"1"}, {}) != folder


def test_the_copy_is_gone_after_a_signal_too(tmp_path: Path) -> None:
    program = (
        "from common.system import outside_code, signals\n"
        "print(outside_code.private_folder('x', {'a.py': b'1'}, {}))\n"
        "signals.leave(signals.TEMPORARY)"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    ended = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert ended.returncode == 75
    assert Path(ended.stdout.strip()).is_relative_to(tmp_path)
    assert list(tmp_path.iterdir()) == []
