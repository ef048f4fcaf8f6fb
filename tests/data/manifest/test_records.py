"""A source chooses among its records, and one record may give several rows."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from common.data.manifest.readers import Record
from common.data.manifest.records import missing_columns, rows_of, window
from common.data.manifest.schema import Source
from common.data.manifest.values import UnusableRow

TABLE = {
    "table": [["", "2019"], ["Sales", "5"]],
    "texts": [{"t": "One."}, {"t": "Two."}],
    "asked": [{"q": "Which?", "a": "Sales", "kind": "span"}, {"q": "How many?", "a": 5, "kind": "count"}],
}
ASK = {"question": "asked.q", "context": ["table", "texts.*.t"], "answer": "asked.a"}


def source(role: str = "sft", columns: dict[str, Any] | None = None, **facts: Any) -> Source:
    facts = {"id": "s", "role": role, "path": "a.json", "licence": "mit", **facts}
    return Source.model_validate(facts | ({"columns": columns} if columns else {}))


def rows(given: Source, *values: dict[str, Any]) -> list[Any]:
    records = [Record(f"a.json, item {number}", value) for number, value in enumerate(values, start=1)]
    found = itertools.chain.from_iterable(rows_of(given, record) for record in window(given, records))
    return [str(item.row) if isinstance(item.row, UnusableRow) else item.row for item in found]


def test_each_item_of_a_list_is_a_record() -> None:
    first, second = rows(source(columns=ASK, each="asked"), TABLE)
    assert [turn["content"] for turn in first["messages"]] == ["Which?\n\n | 2019\nSales | 5\n\nOne.\n\nTwo.", "Sales"]
    assert second["messages"][1]["content"] == "5"


def test_each_item_has_a_place_and_an_id() -> None:
    exam = source("eval", {"question": "asked.q", "answer": "asked.a"}, each="asked", side="domain", match="text")
    assert [row["id"] for row in rows(exam, TABLE, TABLE)] == ["s:1.1", "s:1.2", "s:2.1", "s:2.2"]
    (record, *_) = rows_of(exam, Record("a.json, item 3", TABLE))
    assert record.where == "a.json, item 3, asked 1"


def test_a_record_without_items_is_counted() -> None:
    given = source(columns=ASK, each="asked")
    assert rows(given, TABLE | {"asked": []}, {"table": []}) == ["empty asked", "no list in asked"]


@pytest.mark.parametrize(
    ("where", "answers"),
    [
        ({"asked.kind": "span"}, ["Sales"]),
        ({"asked.kind": ["span", "count"]}, ["Sales", "5"]),
        ({"asked.a": 5}, ["5"]),  # compared as texts, as a csv file holds nothing else
        ({"asked.kind": "span", "asked.a": 5}, []),
        ({"asked": "span"}, []),  # an object equals no value
        ({"nothing": "span"}, []),
    ],
)
def test_where_chooses(where: dict[str, Any], answers: list[str]) -> None:
    found = rows(source(columns=ASK, each="asked", where=where), TABLE)
    assert [row["messages"][1]["content"] for row in found] == answers


@pytest.mark.parametrize(
    ("facts", "numbers"),
    [
        ({"skip": 3}, [3, 4, 5, 6, 7, 8, 9]),
        ({"take": 3}, [0, 1, 2]),
        ({"skip": 2, "take": 3}, [2, 3, 4]),
        ({"every": 4}, [0, 4, 8]),
        ({"skip": 1, "take": 5, "every": 3}, [1, 4]),
    ],
)
def test_window(facts: dict[str, Any], numbers: list[int]) -> None:
    given = source("cpt", **facts)
    assert [int(row["text"]) for row in rows(given, *({"text": str(number)} for number in range(10)))] == numbers


def test_long_texts_are_cut_into_pieces() -> None:
    lines = "\n".join("x" * 900 for _ in range(3))
    two_lines = "x" * 900 + "\n" + "x" * 900
    assert [row["text"] for row in rows(source("cpt", cut="line"), {"text": lines})] == [two_lines, "x" * 900]
    assert [row["text"] for row in rows(source("cpt", cut="paragraph"), {"text": f"a\nb\n\n{lines}"})] == [
        "a\nb",
        lines,
    ]


def test_rows_that_are_too_long_are_counted() -> None:
    assert rows(source("cpt", longest=3), {"text": "abc"}, {"text": "abcd"})[1] == "longer than 3 characters"
    chat = source(columns={"question": "q", "answer": "a"}, longest=3)
    assert rows(chat, {"q": "ab", "a": "c"}, {"q": "ab", "a": "cd"})[1] == "longer than 3 characters"
    pairs = source("preference", {"prompt": "p", "chosen": "c", "rejected": "r"}, longest=3)
    assert rows(pairs, {"p": "a", "c": "bc", "r": "b"}, {"p": "a", "c": "b", "r": "bcd"})[1].startswith("longer than 3")
    exam = source("eval", {"question": "q", "answer": "a"}, longest=3, side="domain", match="text")
    assert len(rows(exam, {"q": "abc", "a": "long answer"})[0]["answers"]) == 1  # a model reads the question only


@pytest.mark.parametrize(
    ("facts", "value", "message"),
    [
        ({}, TABLE, None),
        ({"where": {"asked.kind": "span"}}, TABLE, None),
        ({}, TABLE | {"asked": []}, None),
        ({"each": "questions"}, TABLE, "f has no column 'questions' (for each). It has: table, texts, asked."),
        ({"each": "table.0"}, TABLE, "f has no column 'table.0' (for each)"),
        ({"each": "asked"}, TABLE | {"asked": "x"}, "f: column 'asked' (each) is no list"),
        (
            {"where": {"asked.kin": "x"}},
            TABLE,
            "f has no column 'asked.kin' (for where). It has: table, texts, asked, ",
        ),
        ({"where": {"asked.kin": "x"}}, TABLE, "asked.q, asked.a, asked.kind. Did you mean 'asked.kind'?"),
        ({}, TABLE | {"texts": [{"x": 1}]}, "f has no column 'texts.*.t' (for context)"),
    ],
)
def test_missing_columns(facts: dict[str, Any], value: dict[str, Any], message: str | None) -> None:
    problems = missing_columns(source(columns=ASK, **{"each": "asked", **facts}), value, "f")
    assert len(problems) == (message is not None)
    assert message is None or message in problems[0]
