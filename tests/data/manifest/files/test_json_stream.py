"""A document is read an item at a time, wherever its text is cut."""

from __future__ import annotations

import json
import sys
import threading
import tracemalloc
from pathlib import Path

import pytest

from common.data.manifest.files import json_stream
from common.data.manifest.files.json_stream import JsonStream
from common.data.manifest.readers import Reading, SourceFile, read_file
from common.errors import DataError

VALUES = [{"a": -1.5e10, "b": [True, None, 'x\\"é\u2028']}, {}, {"c": {"d": []}}, 12345678, "\\u00e9", [], -0.5]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("indent", [None, 2])
def test_wherever_the_text_is_cut(size: int, indent: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "_CHUNK", 1)
    text = json.dumps({"k": 1, "data": VALUES}, indent=indent)
    parts = [text[start : start + size] for start in range(0, len(text), size)]
    assert [item for item, _ in JsonStream(iter(parts), "a").items(["data"])] == VALUES
    assert JsonStream(iter(parts), "a").layout() == {"k": "value", "data": "objects"}


def test_memory_holds_an_item_and_not_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"data": [{"text": "x" * 1000, "n": number} for number in range(30_000)]}))
    tracemalloc.start()
    assert sum(1 for _ in read_file(SourceFile(path, "a.json"), Reading())) == 30_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12e6  # of a file of 30 MB; its list of objects alone would be more


def test_files_that_are_read_at_once_do_not_see_each_others_keys(tmp_path: Path) -> None:
    flaws: list[int] = []

    def read(text: str) -> None:
        path = tmp_path / f"{len(text)}.jsonl"
        path.write_text(text * 20_000)
        flaws.append(sum(record.flaw is not None for record in read_file(SourceFile(path, "a.jsonl"), Reading())))

    texts = ('{"a": 1}\n', '{"b": 1, "b": 22}\n')
    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=read, args=(text,)) for text in texts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(switching)
    assert sorted(flaws) == [0, 20_000]


def test_a_key_that_is_no_text() -> None:
    with pytest.raises(DataError, match="a: not valid JSON: Expecting property name enclosed in double quotes"):
        list(JsonStream(iter(["{1: 2}"]), "a").members())


@pytest.mark.parametrize(
    ("inside", "message"),
    [
        ("[" * 900 + "]" * 900, "more than 100 lists and objects inside each other"),
        ("[" * 100_000, "more than 100 lists and objects inside each other"),
        ("1" * 5000, "a number of thousands of digits"),
    ],
    ids=["900", "100000", "digits"],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_rows_are_bounded_in_depth_and_digits(name: str, inside: str, message: str, tmp_path: Path) -> None:
    row = f'{{"text": "a", "more": {inside}}}'
    (tmp_path / name).write_text(f'{{"text": "b"}}\n{row}\n' if name == "a.jsonl" else f"[{row}]", encoding="utf-8")
    with pytest.raises(DataError, match=f"{name}.*not readable as JSON: {message}"):
        list(read_file(SourceFile(tmp_path / name, name), Reading()))
