"""What a plan says of a source: what its rows are, which columns only some rows have, and what is not read."""

from __future__ import annotations

from typing import Any

import pytest

from common.data.manifest.descriptions import describe
from common.data.manifest.schema import Source

COLUMNS = {"question": "q", "answer": "a", "context": "more"}


@pytest.mark.parametrize(
    ("given", "records", "expected"),
    [
        ({"role": "cpt", "path": "a.txt"}, [], "text, a row for each paragraph, joined to about 2,000 characters"),
        ({"role": "cpt", "path": "a.txt", "unit": "line"}, [], "text, a row for each line"),
        (
            {"role": "sft", "path": "a.jsonl", "columns": COLUMNS},
            [{"q": "x", "a": "y", "": 1, "id": 2}],
            "questions and answers (question: q, answer: a); where a row has them: context: more; "
            "not read: a column without a name, id",
        ),
        (
            {"role": "sft", "path": "a.jsonl", "columns": COLUMNS},
            [{"q": "x", "a": "y"}, {"q": "x", "a": "y", "more": "z"}],
            "questions and answers (question: q, answer: a, context: more)",
        ),
        (
            {"role": "cpt", "path": "a.jsonl", "form": "qa", "columns": {"question": "q", "answer": "a"}},
            [{"q": "x", "a": "y", "id": 2}],
            "questions and answers (question: q, answer: a), written as qa: questions and answers as plain text, "
            "without the chat template (arXiv 2407.10804, 2501.14002, 2407.18743); not read: id",
        ),
    ],
)
def test_descriptions(given: dict[str, Any], records: list[dict[str, Any]], expected: str) -> None:
    source = Source.model_validate({"id": "s", "licence": "mit", **given})
    assert describe(source, records) == expected
