"""Make a row of one record, as the columns of a source say.

Usage: `shape("cpt", {"t": "x"}, {"text": "t"})`, and `ask` for questions of an exam.
"""

from __future__ import annotations

from typing import Any

from common.data.manifest.readers import Record
from common.data.manifest.schema import Source
from common.data.manifest.shapes import shape_row

USER = {"role": "user", "content": "Hi?"}
ANSWER = {"role": "assistant", "content": "Yes."}
OTHER = {"role": "assistant", "content": "No."}


def shape(role: str, value: dict[str, Any], columns: dict[str, Any], **facts: Any) -> dict[str, Any]:
    facts = {"id": "s", "role": role, "path": "a.jsonl", "columns": columns, "licence": "mit", **facts}
    row = shape_row(Source.model_validate(facts), Record("a.jsonl, line 7", value))
    assert row.pop("source") == "s"
    return row


def ask(value: dict[str, Any], columns: dict[str, Any], **facts: Any) -> dict[str, Any]:
    return shape("eval", value, {"question": "q", "answer": "a"} | columns, side="domain", **facts)
