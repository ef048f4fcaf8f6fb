"""JSON in every layout that people have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.data.manifest.files.json_stream import JsonStream
from common.errors import DataError
from tests.data.manifest.files.reading import Found, read

ROWS = [{"q": f"Question {number}?", "a": number} for number in range(3)]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.jsonl", "\n".join(map(json.dumps, ROWS)), None),
        ("a.ndjson", "\n".join(map(json.dumps, ROWS)), None),
        ("a.json", json.dumps(ROWS), None),
        ("a.json", json.dumps(ROWS, indent=2), None),
        ("a.json", "\n\n".join(map(json.dumps, ROWS)), "read as JSON lines, an object in each"),
        ("a.jsonl", json.dumps(ROWS), "read as one JSON document"),
        ("a.jsonl", json.dumps(ROWS, indent=2), "read as one JSON document"),
        ("a.jsonl", "\n".join(json.dumps(row, indent=2) for row in ROWS), "read as one JSON document"),
        ("a.json", "\n".join(json.dumps(row, indent=2) for row in ROWS), None),
        ("a.json", json.dumps({"data": ROWS}), "holds its records in 'data'"),
        ("a.json", json.dumps({"version": "1", "tags": ["x"], "n": [], "data": ROWS}, indent=1), "records in 'data'"),
        (
            "a.json",
            json.dumps({"17": ROWS[0], "18": ROWS[1], "19": ROWS[2]}),
            "each of its 3 values is read as",
        ),
        ("a.json", json.dumps({name: [row[name] for row in ROWS] for name in ("q", "a")}), "holds columns"),
        (
            "a.json",  # as pandas writes a table by default
            json.dumps({name: {str(n): row[name] for n, row in enumerate(ROWS)} for name in ("q", "a")}),
            "holds columns",
        ),
    ],
)
def test_layouts(tmp_path: Path, name: str, content: str, told: str | None) -> None:
    found = read(tmp_path, name, content, columns=("q", "a"))
    assert found.values == ROWS
    assert (told is None) == (found.told == [])
    assert told is None or told in found.told[0]


def test_columns_of_different_lengths_are_no_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.json: holds columns of different lengths: \{'q': 2, 'a': 1\}"):
        read(tmp_path, "a.json", '{"q": ["x", "y"], "a": [1]}')


def test_a_list_that_is_named(tmp_path: Path) -> None:
    content = json.dumps({"train": ROWS[:1], "test": ROWS[1:], "in": {"side": ROWS}})
    assert read(tmp_path, "a.json", content, records="test").values == ROWS[1:]
    assert read(tmp_path, "a.json", content, records="in.side").values == ROWS
    with pytest.raises(DataError, match=r"a\.json: holds records in train, test\. Name one with records: train"):
        read(tmp_path, "a.json", content)
    with pytest.raises(DataError, match=r"a\.json: there is no 'tests' for records: tests\. Did you mean 'test'"):
        read(tmp_path, "a.json", content, records="tests")
    with pytest.raises(DataError, match=r"a\.json: 'n' \(records\) is no list"):
        read(tmp_path, "a.json", '{"n": 1}', records="n")


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_missing_numbers_and_keys_given_twice(tmp_path: Path, name: str) -> None:
    rows = ['{"a": NaN, "b": "x"}', '{"a": {"c": 1, "c": 2}}', '{"a": 3}']
    found = read(tmp_path, name, "\n".join(rows) if name == "a.jsonl" else f"[{', '.join(rows)}]")
    assert found.values == [{"a": None, "b": "x"}, {"a": 3}]
    assert found.reasons == ["a key is given twice"]
    assert "has the key 'c' more than once" in found.flaws[0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '{"a": 1}', r"a\.json: holds a single object; expected a list of objects.* It has: a\."),
        ("a.json", '[\n{"a": 1},\n{"a": }]', r"a\.json, line 3: not valid JSON: Expecting value \(column 7\)"),
        ("a.json", '[{"a": 1}] [1]', r"a\.json: not valid JSON: Extra data"),
        ("a.json", '[{"a": 1}', r"a\.json: not valid JSON: Expecting ','"),
        ("a.json", '[{"a": "1', r"a\.json: not valid JSON: Unterminated string"),
        ("a.json", "[" * 100_000, r"a\.json: not readable as JSON"),
        ("a.json", "", r"a\.json: is empty"),
    ],
)
def test_broken_files(tmp_path: Path, name: str, content: str, message: str) -> None:
    if not content:
        assert read(tmp_path, name, content).values == []
        return
    with pytest.raises(DataError, match=message):
        read(tmp_path, name, content)


def test_the_list_with_the_records_is_looked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[JsonStream] = []
    layout = JsonStream.layout

    def look(stream: JsonStream) -> dict[str, str] | None:
        looked.append(stream)
        return layout(stream)

    monkeypatch.setattr(JsonStream, "layout", look)
    (tmp_path / "a.json").write_text(json.dumps({"data": ROWS}))
    for _ in range(3):
        found = Found(tmp_path / "a.json")
        assert found.values == ROWS
        assert found.told == ["a.json holds its records in 'data'. Name another list with records:"]
    assert len(looked) == 1
    assert read(tmp_path, "a.json", json.dumps({"rows": ROWS})).values == ROWS  # another file now


@pytest.mark.parametrize(
    ("name", "content", "flaw"),
    [
        (
            "a.jsonl",
            '{"a": 1}\n["b"]\n{"a": 2}\n',
            'a.jsonl, line 2: holds a list; expected an object like {"text": ...}',
        ),
        ("a.json", '[{"a": 1}, 2, {"a": 2}]', 'a.json, item 2: holds a number; expected an object like {"text": ...}'),
    ],
)
def test_what_is_no_object_costs_its_own_row(name: str, content: str, flaw: str, tmp_path: Path) -> None:
    found = read(tmp_path, name, content)
    assert (found.values, found.flaws, found.reasons) == ([{"a": 1}, {"a": 2}], [flaw], ["no object"])
