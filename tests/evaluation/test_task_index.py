"""The harness's index of its own tasks is read once, and again after any of its files has changed."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.evaluation.task_index import remembered_index
from common.store import cache

FILES = {
    "one/one.yaml": "task: one\ntag: [easy, short]\ndoc_to_text: x\n",
    "two.yaml": "task: two\ntag: easy\n",
    "both.yaml": "group: both\ntask: [one, two]\n",
    "code.yaml": "task: code\nclass: !function utils.Code\n",
    "default.yaml": "doc_to_text: y\n",
    "six.yaml": "include: _template_yaml\ntask: six\n",
    "_template_yaml": "tag: often\n",
}
READS = len(FILES) - 1  # what is included is read otherwise


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the harness with a few tasks, and a cache of this test's own."""
    from lm_eval import tasks

    folder = tmp_path / "tasks"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(tasks, "__file__", str(folder / "__init__.py"))
    monkeypatch.setattr(cache, "folder", lambda: tmp_path / "cache")
    return folder


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that the harness reads."""
    from lm_eval.tasks import _index

    names, load = list[str](), _index.load_yaml

    def noted(path: Path, **how: Any) -> Any:
        names.append(path.name)
        return load(path, **how)

    monkeypatch.setattr(_index, "load_yaml", noted)
    return names


def index(*folders: Path) -> dict[str, Any]:
    from lm_eval.tasks._index import TaskIndex

    with remembered_index():
        return dict(TaskIndex().build(list(folders)))


def facts(found: dict[str, Any]) -> dict[str, Any]:
    return {name: (entry.name, entry.kind.name, entry.yaml_path, entry.tags) for name, entry in found.items()}


def test_it_is_what_the_harness_finds_and_is_read_once(own: Path, read: list[str]) -> None:
    from lm_eval.tasks._index import TaskIndex

    plain = TaskIndex().build([own])
    assert plain.keys() == {"one", "two", "both", "code", "six", "easy", "short", "often"}
    read.clear()
    for times in (1, 2):
        found = index(own)
        assert facts(found) == facts(plain)
        assert found["both"].cfg["task"] == ["one", "two"]
        assert len(read) == READS, times
    assert TaskIndex().build([own]).keys() == plain.keys()  # without the cache, as before
    assert len(read) == 2 * READS


def write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def under_its_old_time(path: Path, text: str) -> None:
    before = path.stat()
    write(path, text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {  # what happens to the folder, and what is found then
    "edited": (lambda own: write(own / "two.yaml", "task: new\n"), "new"),
    "edited to the same length": (lambda own: write(own / "two.yaml", "task: two\ntag: hard\n"), "hard"),
    "edited under its old time": (lambda own: under_its_old_time(own / "two.yaml", "task: two\ntag: hard\n"), "hard"),
    "a new file": (lambda own: write(own / "one" / "new.yaml", "task: new\n"), "new"),
    "one file less": (lambda own: (own / "two.yaml").unlink(), "one"),
    "included": (lambda own: write(own / "_template_yaml", "tag: seldom\n"), "seldom"),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_it_is_read_again_where_a_file_has_changed(change: str, own: Path, read: list[str]) -> None:
    from lm_eval.tasks._index import TaskIndex

    index(own)
    happens, found = CHANGES[change]
    happens(own)
    read.clear()
    changed = index(own)
    assert read
    assert found in changed
    assert facts(changed) == facts(TaskIndex().build([own]))


def test_it_is_read_again_with_another_version(own: Path, read: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    index(own)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.0")
    read.clear()
    index(own)
    assert read


def test_what_the_harness_passes_over_is_passed_over(own: Path, read: list[str]) -> None:
    plain = facts(index(own))
    (own / ".#two.yaml").symlink_to("nobody@nowhere:1")  # as an editor leaves beside an open file
    (own / "utils.py").write_text("x = 1", encoding="utf-8")
    assert facts(index(own)) == plain


def test_other_folders_are_read_each_time_and_override(own: Path, read: list[str], tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "mine.yaml").write_text("task: one\n", encoding="utf-8")
    index(own, mine)
    read.clear()
    assert index(own, mine)["one"].yaml_path == mine / "mine.yaml"
    assert read == ["mine.yaml"]


@pytest.mark.parametrize("place", ["/etc/other.yaml", "../other.yaml"])
def test_a_place_elsewhere_is_never_taken_from_the_cache(place: str, own: Path, read: list[str]) -> None:
    plain = facts(index(own))
    (file,) = (cache.folder() / "tasks").glob("*.json")
    file.write_text(file.read_text(encoding="utf-8").replace('"two.yaml"', f'"{place}"'), encoding="utf-8")
    read.clear()
    assert facts(index(own)) == plain
    assert len(read) == READS


def test_an_index_that_is_damaged_is_made_again(own: Path, read: list[str]) -> None:
    plain = facts(index(own))
    (file,) = (cache.folder() / "tasks").glob("*.json")
    wrong = ('["one", "NONE", null, [], null]', '["one", "TASK", 5, [], null]', '["one", "TASK"]')
    for text in ("{", *(f'{{"entries": [{row}]}}' for row in (*wrong, "")), '{"entries": 3}'):
        file.write_text(text, encoding="utf-8")
        assert facts(index(own)) == plain
