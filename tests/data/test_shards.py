"""Tests of the files of rows between stages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.data.shards import read_shard, replacing, shards_of, write_shard
from common.errors import DataError

ROWS: list[dict[str, Any]] = [
    {"source": "a", "text": "plain"},
    {"source": "b", "text": "Größe 中国 \u2028 line\nbreak \x00 \ud800 half"},
    {"source": "c", "messages": [{"role": "user", "content": "x" * 3_000_000}], "n": 2**70, "none": None},
]


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "rows" / "00000.jsonl.zst"
    assert write_shard(path, iter(ROWS)) == len(ROWS)
    assert list(read_shard(path)) == ROWS
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_the_same_rows_make_the_same_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl.zst", tmp_path / "b.jsonl.zst"
    write_shard(first, ROWS)
    write_shard(second, (row for row in ROWS))
    assert first.read_bytes() == second.read_bytes()


def test_no_rows_make_a_file_without_rows(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.jsonl.zst", [])
    assert list(read_shard(tmp_path / "a.jsonl.zst")) == []


def test_a_file_is_replaced_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows" / "00000.jsonl.zst"
    write_shard(path, ROWS)

    def broken() -> Iterator[dict[str, str]]:
        yield {"text": "new"}
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_shard(path, broken())
    assert list(read_shard(path)) == ROWS
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_what_a_killed_writer_left_is_no_shard_and_goes_with_the_next(tmp_path: Path) -> None:
    left = tmp_path / "rows" / ".00000.jsonl.zst.fresh"
    left.parent.mkdir()
    left.write_bytes(b"half")
    assert shards_of(tmp_path) == []
    write_shard(tmp_path / "rows" / "00000.jsonl.zst", ROWS)
    write_shard(tmp_path / "rows" / "00001.jsonl.zst", [])
    assert [path.name for path in shards_of(tmp_path)] == ["00000.jsonl.zst", "00001.jsonl.zst"]
    assert not left.exists()


@pytest.mark.parametrize("kept", [0, 10, -1])
def test_a_damaged_file_is_refused(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "a.jsonl.zst"
    write_shard(path, [{"text": f"row {number} {number * 7919}"} for number in range(1000)])
    path.write_bytes(path.read_bytes()[:kept] if kept else b"no zstandard")
    with pytest.raises(DataError, match=r"a\.jsonl\.zst: expected rows as JSON lines in a zstandard file"):
        list(read_shard(path))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone.jsonl.zst.*after line 0"):
        list(read_shard(tmp_path / "gone.jsonl.zst"))


def test_a_folder_is_replaced_as_one(tmp_path: Path) -> None:
    for name in ("old", "new"):
        with replacing(tmp_path / "part") as fresh:
            fresh.mkdir()
            (fresh / name).write_text(name)
    assert [path.name for path in (tmp_path / "part").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["part"]
