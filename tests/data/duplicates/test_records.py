"""Sorted records in files, and sketches of rows: read where they are asked for, and never mapped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.data.duplicates.records import SortedFile, in_key_order, sort_records
from common.data.duplicates.search import Parts
from common.data.duplicates.signatures import Buckets, PartWriter, Sketches

RECORD = np.dtype([("key", "<u8"), ("rest", "<u4"), ("place", "<u4")])


@pytest.fixture
def nothing_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse to map a file: pages that were read would count as memory of the process."""

    def refuse(*given: Any, **options: Any) -> None:
        raise AssertionError("a file is mapped")

    monkeypatch.setattr(np, "memmap", refuse)


@pytest.mark.usefixtures("nothing_mapped")
def test_records_of_many_files_come_in_the_order_of_their_keys(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    files, offset, expected = [], 0, []
    for number in range(4):
        records = np.empty(50 * number, RECORD)
        records["key"] = rng.integers(0, 2**64, len(records), np.uint64)
        records["key"][::10] = 7  # too many for one piece
        records["rest"], records["place"] = number, np.arange(len(records))
        found = records[np.lexsort([records["place"], records["key"]])]
        (tmp_path / str(number)).write_bytes(bytes(24) + found.tobytes())
        files.append(SortedFile(tmp_path / str(number), 24, len(found), offset))
        expected += [(int(one["key"]), int(one["place"]) + offset) for one in found]
        offset += len(found)
    pieces = list(in_key_order(files, RECORD, most=16))
    assert len(pieces) > 15
    assert all(len(piece) <= 17 for piece in pieces)
    keys = [int(key) for piece in pieces for key in piece["key"]]
    assert keys == sorted(keys)
    assert {(int(one["key"]), int(one["row"])) for piece in pieces for one in piece} == set(expected)


def test_sketches_of_rows_in_several_parts_are_read_one_by_one(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    texts = ["one two three four five six", "seven eight nine ten eleven", "one two three four five seven"]
    for number, text in enumerate(texts):
        (folder := tmp_path / f"task-{number:05d}").mkdir()
        with PartWriter(folder, Buckets(8, 32), 2) as writer:
            writer.add("some other text of six words")
            writer.add(text)
        (folder / "excerpts.ends").write_bytes(bytes(24))
    request.getfixturevalue("nothing_mapped")
    sketches = Sketches(Parts([(tmp_path / f"task-{number:05d}", None) for number in range(3)]), 256)
    alike = sketches.likeness(np.array([1, 1, 0, 5]), np.array([5, 3, 4, 5]))
    assert alike[0] == pytest.approx(4 / 6, abs=0.12)
    assert alike[1] == pytest.approx(0, abs=0.05)
    assert list(alike[2:]) == [1.0, 1.0]


def test_records_are_sorted_by_their_fields_in_their_order() -> None:
    records = np.array([(2, 1, 0), (1, 9, 1), (1, 2, 2)], RECORD)
    assert sort_records(records)["place"].tolist() == [2, 1, 0]
