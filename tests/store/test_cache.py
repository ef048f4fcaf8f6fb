"""The user's cache: it saves time, and whatever happens to it, nothing else does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from common.store import cache
from common.store.artifacts import digest_file

folder_of_the_user = cache.folder  # before a fixture puts another in its place


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cache, "folder", lambda: tmp_path / "cache")
    cache._large_digest.cache_clear()
    return tmp_path / "cache"


def large(path: Path, byte: bytes = b"a") -> Path:
    path.write_bytes(byte * cache.LARGE)
    os.utime(path, ns=(0, 0))
    return path


def test_what_is_written_is_read() -> None:
    assert cache.read("rows/one") == {}
    cache.write("rows/one", {"rows": 12})
    assert cache.read("rows/one") == {"rows": 12}


@pytest.mark.parametrize("text", ["", "{", "[1]", "\x00"])
def test_a_damaged_file_counts_as_none(place: Path, text: str) -> None:
    place.mkdir()
    (place / "digests.json").write_text(text, encoding="utf-8")
    assert cache.read("digests") == {}


def test_a_folder_that_cannot_be_made_is_left_alone(place: Path) -> None:
    place.write_text("a file, no folder", encoding="utf-8")
    cache.write("rows/one", {"rows": 12})
    assert cache.read("rows/one") == {}


def test_the_older_half_goes_where_there_are_many(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MOST_FILES", 3)
    for number in range(4):
        cache.write(f"rows/{number}", {"number": number})
        if number < 3:
            os.utime(place / "rows" / f"{number}.json", ns=(number, number))
    assert sorted(path.stem for path in (place / "rows").iterdir()) == ["2", "3"]


def test_a_large_file_is_digested_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "SETTLED", -(10**12))  # the time of a file's own change cannot be set back
    path = large(tmp_path / "data.jsonl")
    first = cache.known_digest(path)
    assert first == digest_file(path)
    read: list[Path] = []

    def watched(path: Path) -> str:
        read.append(path)
        return digest_file(path)

    monkeypatch.setattr(cache, "digest_file", watched)
    cache._large_digest.cache_clear()  # as in a new process
    assert cache.known_digest(path) == first
    assert read == []
    large(path, b"b")  # as large, and of the same time
    assert cache.known_digest(path) == digest_file(path) != first
    assert read == [path]


def test_a_file_that_has_just_changed_is_not_remembered(tmp_path: Path) -> None:
    cache.known_digest(large(tmp_path / "data.jsonl"))
    assert cache.read("digests") == {}


def test_the_folder_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert folder_of_the_user() == tmp_path / "domain-recipes"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert folder_of_the_user() == Path.home() / ".cache" / "domain-recipes"


def test_what_is_remembered_is_made_once_and_again_where_it_is_damaged(place: Path) -> None:
    made: list[int] = []

    def make() -> dict[str, Any]:
        made.append(1)
        return {"rows": len(made)}

    def remembered(facts: list[Any]) -> dict[str, Any]:
        return cache.remembered("rows", facts, make, lambda found: int(found["rows"]))

    assert [remembered(["a"]), remembered(["a"]), remembered(["b"])] == [{"rows": 1}, {"rows": 1}, {"rows": 2}]
    for path in (place / "rows").iterdir():
        path.write_text('{"rows": "many"}', encoding="utf-8")
    assert remembered(["a"]) == {"rows": 3}
    assert remembered(["a"]) == {"rows": 3}
