"""Recognise the columns of a few records, and make a row with them: what the tests of recognition share."""

from __future__ import annotations

from typing import Any

from common.data.manifest.readers import Record
from common.data.manifest.recognition import recognise
from common.data.manifest.records import rows_of
from common.data.manifest.schema import Source
from common.data.manifest.values import UnusableRow

SHAREGPT = [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]
OPENAI = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
FIRST = {"role": "user", "content": "Why?"}
LAST = {"role": "assistant", "content": "So."}
WORSE = {"role": "assistant", "content": "No."}


def source(role: str, **facts: Any) -> Source:
    side = {"side": "domain"} if role == "eval" else {}
    return Source.model_validate({"id": "s", "role": role, "path": "a.jsonl", "licence": "mit"} | side | facts)


def told(role: str, *records: dict[str, Any], **facts: Any) -> dict[str, Any]:
    keys = recognise(source(role, **facts), records)
    return keys if len(keys) > 1 else keys["columns"]


def row_of(role: str, *records: dict[str, Any], **facts: Any) -> Any:
    given = source(role, **facts)
    whole = Source.model_validate(given.model_dump() | recognise(given, records))
    (found,) = rows_of(whole, Record("a.jsonl, line 1", records[0]))
    assert not isinstance(found.row, UnusableRow), found.row
    return {key: value for key, value in found.row.items() if key not in ("source", "id")}


ASKED = {"question": "Which?", "choices": ["one", "two", "three"], "answer": 1}
