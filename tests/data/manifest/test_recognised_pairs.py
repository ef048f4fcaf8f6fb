"""Columns of pairs, and of single answers with a label, are recognised."""

from __future__ import annotations

from typing import Any

import pytest

from common.data.manifest.fields import Unclear
from tests.data.manifest.recognised import FIRST, LAST, OPENAI, SHAREGPT, WORSE, row_of, told

PAIR = {"prompt": [FIRST], "chosen": [LAST], "rejected": [WORSE]}


@pytest.mark.parametrize(
    ("record", "names"),
    [
        ({"prompt": "Why?", "chosen": "So.", "rejected": "No."}, {"prompt", "chosen", "rejected"}),
        ({"prompt": [FIRST], "chosen": [LAST], "rejected": [WORSE]}, {"prompt", "chosen", "rejected"}),
        ({"prompt": "Why?", "chosen": [FIRST, LAST], "rejected": [FIRST, WORSE]}, {"chosen", "rejected"}),
        (
            {"conversations": SHAREGPT[:1], "chosen": SHAREGPT[1], "rejected": {"from": "gpt", "value": "No."}},
            {"prompt", "chosen", "rejected"},
        ),
        ({"instruction": "Why?", "input": "", "chosen": "So.", "rejected": "No."}, {"prompt", "chosen", "rejected"}),
        ({"question": "Why?", "chosen": "So.", "rejected": "No."}, {"prompt", "chosen", "rejected"}),
        (
            {"input": {"messages": [FIRST]}, "preferred_output": [LAST], "non_preferred_output": [WORSE]},
            {"prompt", "chosen", "rejected"},
        ),
        (
            {"chosen": "\n\nHuman: Why?\n\nAssistant: So.", "rejected": "\n\nHuman: Why?\n\nAssistant: No."},
            {"transcript_chosen", "transcript_rejected"},
        ),
    ],
)
def test_pairs(record: dict[str, Any], names: set[str]) -> None:
    columns = told("preference", record)
    assert columns.keys() == names
    assert row_of("preference", record) == PAIR
    assert told("eval", record) == columns


@pytest.mark.parametrize(
    ("record", "names"),
    [
        ({"prompt": "Why?", "completion": "So.", "label": True}, {"prompt", "completion", "label"}),
        ({"prompt": "Why?", "response": "So.", "label": "desirable"}, {"prompt", "completion", "label"}),
        ({"prompt": [FIRST], "completion": [LAST], "label": 1}, {"prompt", "completion", "label"}),
        ({"messages": OPENAI, "kto_tag": True}, {"messages", "label"}),
        ({"conversations": SHAREGPT, "label": "true"}, {"messages", "label"}),
    ],
)
def test_single_answers_with_a_label(record: dict[str, Any], names: set[str]) -> None:
    assert told("preference", record).keys() == names
    assert row_of("preference", record) == {"prompt": [FIRST], "completion": [LAST], "label": True}


@pytest.mark.parametrize(
    ("record", "doubt"),
    [
        ({"prompt": "Why?", "chosen": "So."}, "'chosen' has no column beside it"),
        (
            {"prompt": "Why?", "completion": "So.", "label": "sports"},
            "'label' is neither true nor false: 'sports' is not among true and false, 1 and 0 or -1, yes and no",
        ),
        ({"prompt": "Why?", "answer": "So."}, "none is a pair of answers, or a label of one"),
        ({"chosen": "So.", "rejected": "No."}, "none is the prompt"),
        ({"prompt": "Why?", "question": "Why?", "chosen": "So.", "rejected": "No."}, "could be the prompt"),
        ({"prompt": "Why?", "answer": "x", "output": "y", "label": 1}, "'output' and 'answer' could be the answer"),
    ],
)
def test_preferences_that_are_not_clear(record: dict[str, Any], doubt: str) -> None:
    with pytest.raises(Unclear, match=doubt):
        told("preference", record)


def test_the_tools_of_openai_preferences() -> None:
    schema = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
    row = {"preferred_output": [LAST], "non_preferred_output": [WORSE]}
    asked = row | {"input": {"messages": [FIRST], "tools": [schema], "parallel_tool_calls": True}}
    assert row_of("preference", asked)["tools"] == [schema]
    assert "tools" not in row_of("preference", row | {"input": {"messages": [FIRST]}})
